"""Windowed causal attention out of `scaled_dot_product_attention` alone: runs on every device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def visible(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """Which key each query sees: (queries, keys) bool.

    The last query is aligned with the last key; a query sees itself and ``window`` keys before.
    """
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)[None, :]
    return (key <= query) & (key >= query - window)


def grouped(kv_BHTD: Tensor, heads: int) -> Tensor:
    """Repeat every key/value head for the query heads that share it."""
    shared = heads // kv_BHTD.shape[1]
    return kv_BHTD if shared == 1 else kv_BHTD.repeat_interleave(shared, dim=1)


def masked_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None
) -> Tensor:
    """One masked product of all queries with all keys in reach; (B, T, H, D)."""
    queries, reach = q_BTHD.shape[1], window + q_BTHD.shape[1]
    k_BTKD, v_BTKD = k_BTKD[:, -reach:], v_BTKD[:, -reach:]  # older keys are out of every window
    keys = k_BTKD.shape[1]
    q = q_BTHD.transpose(1, 2)
    k, v = (grouped(x.transpose(1, 2), q.shape[1]) for x in (k_BTKD, v_BTKD))
    if queries == 1 or (queries == keys and window >= keys - 1):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=queries > 1, scale=scale)
    else:
        mask = visible(queries, keys, window, q.device)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)


def banded_attention(
    q_BTHD: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    window: int,
    scale: float | None,
    block: int = 256,
) -> Tensor:
    """Each block of queries against the slice of keys that its window reaches; (B, T, H, D)."""
    queries, keys = q_BTHD.shape[1], k_BTKD.shape[1]
    past = keys - queries
    blocks = []
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        reached = slice(max(0, past + start - window), past + stop)
        blocks.append(
            masked_attention(
                q_BTHD[:, start:stop], k_BTKD[:, reached], v_BTKD[:, reached], window, scale
            )
        )
    return torch.cat(blocks, dim=1)
