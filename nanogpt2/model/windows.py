"""Sliding windows as a mask: which keys a query may see.

Training never builds this mask (see ``nanogpt2.kernels.attention``); it is the definition that
the fast ways are held against, and what the book draws. Source: Longformer (Beltagy et al.,
arXiv 2004.05150), Mistral 7B (arXiv 2310.06825). Chapter: windows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def window_mask(n_queries: int, n_keys: int, left: int) -> Tensor:
    """(n_queries, n_keys) bool, true where a query sees a key; the last ones of both meet.

    A query sees itself and the ``left`` keys before it.
    """
    query = torch.arange(n_keys - n_queries, n_keys).unsqueeze(1)
    key = torch.arange(n_keys).unsqueeze(0)
    return (key <= query) & (key >= query - left)


def receptive_field(windows: list[tuple[int, int]]) -> int:
    """How many tokens before it the last token's output can depend on: the windows add up."""
    return sum(left for left, _ in windows)
