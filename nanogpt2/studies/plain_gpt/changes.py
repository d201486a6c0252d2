"""Changed models of the chapter on the plain GPT: other shapes, other start values, a bug."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.lab.probing import attending
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.model.gpt import GPT

STARTS: dict[str, Callable[[int, int], float]] = {
    "zero": lambda width, depth: 0.0,
    "GPT-2's": lambda width, depth: 0.02 / math.sqrt(2 * depth),
    "like the others": lambda width, depth: width**-0.5,
}
"""spread of the output matrices at the start, from width and depth"""


def outputs_start(name: str) -> Patch:
    """Models made within the block start their output matrices with the spread of ``STARTS``."""
    right = GPT.init_weights

    @torch.no_grad()
    def start(model: GPT, seed: int = 0) -> None:
        right(model, seed)
        spread = STARTS[name](model.config.n_embd, model.config.n_layer)
        generator = torch.Generator(model.device).manual_seed(seed + 1)
        for block in model.blocks:
            for out in (block.attn.c_proj, block.mlp.c_proj):
                out.weight.normal_(0.0, spread, generator=generator)

    return patched("nanogpt2.model.gpt.GPT.init_weights", start)


def heads_cut_across() -> Any:
    """Failure: (B, T, C) is read as (B, H, T, D) in memory's order, without moving an axis."""

    def wrong(right: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        B, T, H, D = q.shape
        cut = [x.reshape(B, H, T, D).transpose(1, 2).contiguous() for x in (q, k, v)]
        return right(*cut, window)

    return attending(wrong)


CHANGES: dict[str, dict[str, Any]] = {
    "1 layer, 192 wide": {"n_layer": 1, "n_embd": 192, "n_head": 6, "n_kv_head": 6},
    "9 layers, 64 wide": {"n_layer": 9, "n_embd": 64, "n_head": 2, "n_kv_head": 2},
    "one head of 96": {"n_head": 1, "n_kv_head": 1},
}
"""What is compared with the book's baseline: 4 layers, 96 wide, three heads of 32."""
