"""Changed models of the chapter on sliding windows: other windows, and masks gone wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.lab.probing import attending
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variations import Variation


def leaking_mask() -> Patch:
    """Failure: the mask compares distances and forgets who comes first."""

    def attend(_: Any, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        place = torch.arange(q.size(1), device=q.device)
        seen = (place[:, None] - place[None, :]).abs() <= window
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)

    return attending(attend)


def one_key_short() -> Patch:
    """Failure: a window of w keys, the query's own among them."""
    return attending(lambda right, q, k, v, window: right(q, k, v, window - 1))


def last_layer_short() -> Patch:
    """Models made within the block have a short window in the last layer, too."""
    right = GPTConfig.window_sizes

    def short(config: GPTConfig) -> list[tuple[int, int]]:
        return [*right(config)[:-1], (config.short_window, 0)]

    return patched("nanogpt2.config.GPTConfig.window_sizes", short)


VARIATIONS = {
    "windows_third": Variation(
        "short windows of T/3", "0", "half a row cost nothing in short runs",
        {"short_window_divisor": 3},
    ),
    "windows_quarter": Variation(
        "short windows of T/4", "0", "half a row cost nothing in short runs",
        {"short_window_divisor": 4},
    ),
    "windows_sixteenth": Variation(
        "short windows of T/16", "+", "less than a sentence; one layer alone sees more",
        {"short_window_divisor": 16},
    ),
    "sixteenth_last_too": Variation(
        "T/16, the last layer too", "+", "no layer sees more than a sentence",
        {"short_window_divisor": 16}, last_layer_short,
    ),
    "half_last_too": Variation(
        "T/2, the last layer too", "+", "no layer sees the whole row at once",
        within=last_layer_short,
    ),
}  # fmt: skip
"""other windows than SSSL with short ones of T/2"""
