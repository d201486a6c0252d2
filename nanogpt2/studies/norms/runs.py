"""Training runs of the chapter on norms: the changed models, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.inference.kv_cache import KVCache
from nanogpt2.lab.patching import patched
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import compare
from nanogpt2.model import gpt, norm
from nanogpt2.model.gpt import GPT


class DyT(nn.Module):
    """Dynamic tanh (Zhu et al., arXiv 2503.10622) in a norm's place: gain tanh(alpha x) + shift."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.weight * torch.tanh(self.alpha * x) + self.bias


@contextmanager
def dynamic_tanh() -> Iterator[None]:
    """Models made within the block have DyT where the others have a norm (QK-norm stays)."""
    with patched(gpt, "Norm", DyT):
        yield


@contextmanager
def over_time() -> Iterator[None]:
    """Failure: the mean square is taken over the row's positions in place of the channels."""

    def wrong(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-7).rsqrt()

    with patched(norm, "rms_norm", wrong):
        yield


@torch.no_grad()
def looks_ahead(model: GPT, data: SmallData) -> float:
    """Largest change of the logits of a row's tokens when only the last token is replaced."""
    tokens, _ = data.validation(8, model.config.sequence_len)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
    return float((model(tokens) - model(other))[:, :-1].abs().max())


@torch.no_grad()
def row_losses(
    model: GPT, data: SmallData, rows: int = 16, length: int = 64
) -> tuple[float, float]:
    """Nats per token of rows of ``length`` read at once, and of the same rows token by token."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one token is too little work to share
    try:
        x, y = data.validation(rows, length)
        cache = KVCache(model.config, rows, length)
        steps = torch.cat([model(token, cache=cache) for token in x.split(1, dim=1)], dim=1)
        return float(model(x, y)), float(F.cross_entropy(steps.flatten(0, 1), y.flatten()))
    finally:
        torch.set_num_threads(threads)


def verdict(with_gain: list[float], without: list[float]) -> int:
    """0, 1 or 2: the gain helps, makes no difference that seeds can show, or hurts."""
    found = compare(with_gain, without)
    return 1 if not found.distinguishable else 0 if found.difference < 0 else 2


CHANGES: dict[str, dict[str, Any]] = {
    "a learned gain on every norm": {"norm_learnable": True},
    "LayerNorm, without gain and shift": {"norm": "layer"},
    "LayerNorm, with gain and shift": {"norm": "layer", "norm_learnable": True},
    "DyT in place of every norm but QK-norm": {},
    "no norm after the embedding": {"embedding_norm": False},
    "no QK-norm": {"qk_norm": False},
    "no softcap": {"logit_softcap": 0.0},
    "a tied head": {"tied_head": True, "wte_std": 0.02},
    "GELU in place of squared ReLU": {"activation": "gelu"},
}
"""What is compared with the book's baseline, one change each."""
WITHIN: dict[str, Callable[[], Any]] = {"DyT in place of every norm but QK-norm": dynamic_tanh}
