"""Changed models of the chapter on sliding windows: other windows, and masks gone wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.lab.probing import attending
from nanogpt2.lab.seams import Patch, patched


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


CHANGES: dict[str, dict[str, Any]] = {
    "full windows everywhere": {"window_pattern": "L"},
    "short windows of T/4": {"short_window_divisor": 4},
    "short windows of T/16": {"short_window_divisor": 16},
    "T/16, the last layer too": {"short_window_divisor": 16},
    "T/2, the last layer too": {},
}
"""What is compared with the book's baseline: SSSL, short windows of T/2."""
WITHIN: dict[str, Callable[[], Patch]] = {
    "T/16, the last layer too": last_layer_short,
    "T/2, the last layer too": last_layer_short,
}
