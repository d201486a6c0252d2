"""Changed models of the chapter on the plain GPT: other shapes, other start values, a bug."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.lab.probing import attending
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variations import Variation
from nanogpt2.model.gpt import GPT
from nanogpt2.rungs import Ladder

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


def _shape(title: str, expected: str, because: str, depth: int) -> Variation:
    """So many layers with as many parameters in their matrices, and the same weight decay."""
    top = Ladder().top
    width = math.isqrt(top.depth * (top.aspect * top.depth) ** 2 // depth)
    decay = top.muon.weight_decay * (depth / top.depth) ** 2  # the rule of depth undone
    settings = {"depth": depth, "aspect": width // depth, "muon.weight_decay": decay}
    return Variation(title, expected, because, settings)


def heads_cut_across() -> Any:
    """Failure: (B, T, C) is read as (B, H, T, D) in memory's order, without moving an axis."""

    def wrong(right: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        B, T, H, D = q.shape
        cut = [x.reshape(B, H, T, D).transpose(1, 2).contiguous() for x in (q, k, v)]
        return right(*cut, window)

    return attending(wrong)


VARIATIONS = {
    "one_layer": _shape(
        "1 layer, 256 wide", "+", "what attention finds, no second layer can use", depth=1
    ),
    "sixteen_layers": _shape(
        "16 layers, 64 wide", "+", "a narrow stream; the rates were searched at four layers",
        depth=16,
    ),
    "one_head": Variation(
        "one head of 128", "0", "as many parameters, and few patterns to tell apart",
        {"head_dim": 128},
    ),
}  # fmt: skip
"""other shapes than 4 layers, 128 wide, two heads of 64"""
