"""Continue prompts token by token: read them into a cache (prefill), then write (decode).

Chapter: speedrun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.evals.modes import evaluating
from nanogpt2.inference.kv_cache import KVCache
from nanogpt2.inference.sampling import Sampler, Sampling
from nanogpt2.model.gpt import GPT

PREFILL_TOKENS = 1024
"""prompts are read in pieces of this many tokens, which bounds the memory it takes"""


@torch.inference_mode()
def prefill(model: GPT, cache: KVCache, prompt: Sequence[int]) -> Tensor:
    """Read ``prompt`` into ``cache`` (one row), piece by piece; the logits (1, V) after it."""
    for piece in torch.tensor([prompt], device=model.device).split(PREFILL_TOKENS, dim=1):
        hidden = model.hidden(piece, cache)
    return model.logits(hidden[:, -1])


@torch.inference_mode()
def generate_steps(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_tokens: Iterable[int] = (),
) -> Iterator[list[int | None]]:
    """Continue all prompts together, token by token.

    Yields, for every step, each prompt's new token, or None where the text has ended: at a stop
    token (which is not yielded), at ``max_new_tokens``, or where the model has no more positions.
    A prompt's tokens depend on the seed and its place in the list, not on its company.

    Raises:
        UserError: no prompt, an empty one, a token outside the vocabulary, a prompt longer than the
            model's positions, or sampling values that mean nothing.
    """
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed), len(prompts))
    _check(model, prompts, max_new_tokens)
    stops, alive = frozenset(stop_tokens), list(range(len(prompts)))
    room = model.max_positions
    capacity = min(room, max(map(len, prompts)) + max_new_tokens)
    with evaluating(model):
        cache = KVCache(model.config, len(prompts), capacity, model.device)
        texts, after = [tuple(prompt) for prompt in prompts], {}
        for text in dict.fromkeys(texts):  # each is read alone, equal ones once
            alone = KVCache(model.config, 1, len(text), model.device)
            after[text] = prefill(model, alone, text)
            cache.put([row for row, other in enumerate(texts) if other == text], alone)
        logits = torch.cat([after[text] for text in texts])
        for step in range(max_new_tokens):
            drawn = sampler(logits, alive)
            going = [row for row, token in enumerate(drawn) if token not in stops]
            if not going:
                return
            tokens: list[int | None] = [None] * len(prompts)
            for row in going:
                tokens[alive[row]] = drawn[row]
            yield tokens
            going = [row for row in going if len(prompts[alive[row]]) + step < room]
            if not going or step == max_new_tokens - 1:
                return
            if len(going) < len(alive):
                cache, alive = cache.select(going), [alive[row] for row in going]
            idx = torch.tensor([[drawn[row]] for row in going], device=model.device)
            logits = model.logits(model.hidden(idx, cache)[:, -1])


def generate(
    model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int = 128, **settings: Any
) -> list[list[int]]:
    """The new tokens of every prompt; settings and errors as for ``generate_steps``."""
    texts: list[list[int]] = [[] for _ in prompts]
    for step in generate_steps(model, prompts, max_new_tokens, **settings):
        for text, token in zip(texts, step, strict=True):
            if token is not None:
                text.append(token)
    return texts


def _check(model: GPT, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if not prompts:
        raise UserError("there is no prompt; give at least one")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    room, vocab_size = model.max_positions, model.config.vocab_size
    for place, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {place} is empty; give at least one token, such as <|bos|>")
        if len(prompt) > room:
            raise UserError(
                f"prompt {place} has {len(prompt)} tokens and the model has {room} positions; "
                "shorten it"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(
                f"prompt {place} holds a token outside the model's vocabulary of {vocab_size}; "
                "use the tokenizer that the model was trained with"
            )
