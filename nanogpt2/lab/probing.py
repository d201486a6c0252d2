"""Looking into a model while it runs, and asking whether its tokens see what they must not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nanogpt2.lab.seams import patched
from nanogpt2.lab.small_data import SmallData
from nanogpt2.model.gpt import GPT

Hook = Callable[[Any, Tensor, Tensor], Any]
K = TypeVar("K")


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Within the block ``hook(module, input, output)`` follows each module's forward pass.

    What a hook returns, other than None, takes the output's place.
    """
    handles = [
        module.register_forward_hook(lambda m, inputs, out, hook=hook: hook(m, inputs[0], out))
        for module, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched(modules: Mapping[K, nn.Module]) -> Iterator[dict[K, tuple[Tensor, Tensor]]]:
    """Within the block, what last went into each module and what came out of it, by key."""
    seen: dict[K, tuple[Tensor, Tensor]] = {}

    def see(key: K) -> Hook:
        return lambda _, x, out: seen.update({key: (x, out)})

    with hooked((module, see(key)) for key, module in modules.items()):
        yield seen


@contextmanager
def attending(with_this: Callable[..., Tensor]) -> Iterator[None]:
    """Within the block every layer's attention is ``with_this(right, q, k, v, window)``.

    ``right`` is the package's own, with whatever else the layer asked of it.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, window: int, **more: Any) -> Tensor:
        return with_this(lambda *inputs: before(*inputs, **more), q, k, v, window)

    with patched("nanogpt2.model.attention.attention", attend) as before:
        yield


@torch.no_grad()
def looks_ahead(model: GPT, data: SmallData) -> float:
    """Largest change of the logits of a row's tokens when only the last token is replaced."""
    tokens, _ = data.validation(8, model.config.sequence_len)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
    return float((model(tokens) - model(other))[:, :-1].abs().max())
