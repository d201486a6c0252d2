"""Changed models of the chapter on sliding windows: other windows, and masks gone wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.lab.probing import attending
from nanogpt2.lab.seams import patched


@contextmanager
def leaking_mask() -> Iterator[None]:
    """Failure: the mask compares distances and forgets who comes first."""

    def attend(_: Any, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        place = torch.arange(q.size(1), device=q.device)
        seen = (place[:, None] - place[None, :]).abs() <= window
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)

    with attending(attend):
        yield


@contextmanager
def one_key_short() -> Iterator[None]:
    """Failure: a window of w keys, the query's own among them."""
    with attending(lambda right, q, k, v, window: right(q, k, v, window - 1)):
        yield


@contextmanager
def last_layer_short() -> Iterator[None]:
    """Models made within the block have a short window in the last layer, too."""
    right = GPTConfig.window_sizes

    def short(config: GPTConfig) -> list[tuple[int, int]]:
        return [*right(config)[:-1], (config.short_window, 0)]

    with patched("nanogpt2.config.GPTConfig.window_sizes", short):
        yield


CHANGES: dict[str, dict[str, Any]] = {
    "full windows everywhere": {"window_pattern": "L"},
    "short windows of T/4": {"short_window_divisor": 4},
    "short windows of T/16": {"short_window_divisor": 16},
    "T/16, the last layer too": {"short_window_divisor": 16},
    "T/2, the last layer too": {},
}
"""What is compared with the book's baseline: SSSL, short windows of T/2."""
WITHIN: dict[str, Callable[[], Any]] = {
    "T/16, the last layer too": last_layer_short,
    "T/2, the last layer too": last_layer_short,
}
