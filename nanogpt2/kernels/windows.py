"""Attention through a sliding window, by its definition: what every kernel is held against.

A query sees itself and the ``window`` keys before it; each layer has a window of its own. Training
never builds these masks (see ``nanogpt2.kernels.attention``). Sources: Longformer (Beltagy et al.,
arXiv 2004.05150), Mistral 7B (arXiv 2310.06825), grouped queries (Ainslie et al., 2305.13245).
Chapter: windows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sees(query: Tensor, key: Tensor, window: int) -> Tensor:
    """Whether the query at position ``query`` sees the key at ``key``; positions broadcast."""
    return (key <= query) & (key >= query - window)


def window_mask(
    n_queries: int, n_keys: int, window: int, device: torch.device | None = None
) -> Tensor:
    """Which key each query sees, (n_queries, n_keys) bool; the last ones of both stand together."""
    query = torch.arange(n_keys - n_queries, n_keys, device=device)
    key = torch.arange(n_keys, device=device)
    return sees(query[:, None], key[None, :], window)


def plain_attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int) -> Tensor:
    """Every score, one mask, one softmax; (B, T, H, D).

    Each of the K key heads serves H / K query heads; scores are divided by sqrt(D).
    """
    _, T, H, D = q_BTHD.shape
    shared = H // k_BSKD.shape[2]
    k_BSHD, v_BSHD = (x.repeat_interleave(shared, dim=2) for x in (k_BSKD, v_BSKD))
    scores = D**-0.5 * torch.einsum("bthd,bshd->bhts", q_BTHD, k_BSHD)
    hidden = ~window_mask(T, k_BSKD.shape[1], window, q_BTHD.device)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", weights, v_BSHD)


def receptive_field(windows: list[tuple[int, int]]) -> int:
    """How many tokens before it the last token's output can depend on: the windows add up."""
    return sum(left for left, _ in windows)
