"""Windowed causal attention out of `scaled_dot_product_attention` alone: runs on every device.

``masked_attention`` computes all scores and masks most of them away; ``sliced_attention`` gives
each block of queries only the slice of keys that its window reaches, which is where a window's
savings come from. Source: Longformer (Beltagy et al., arXiv 2004.05150, section 3).
Chapter: windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
"""Queries in a block: long enough for good matrix products, short beside the window."""


def visible(queries: int, keys: int, window: int, device: torch.device | None = None) -> Tensor:
    """Which key each query sees: (queries, keys) bool.

    The last query stands at the last key; a query sees itself and ``window`` keys before it.
    """
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)[None, :]
    return (key <= query) & (key >= query - window)


def torch_version() -> tuple[int, int]:
    """(major, minor) of the torch that runs."""
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def share_heads(kv_BTKD: Tensor, heads: int) -> Tensor:
    """Repeat every key/value head for the query heads that share it: (B, T, H, D)."""
    shared = heads // kv_BTKD.shape[2]
    return kv_BTKD if shared == 1 else kv_BTKD.repeat_interleave(shared, dim=2)


def _product(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """SDPA in (B, H, T, D); in fp32 on Apple GPUs, whose older kernels lose bf16's precision."""
    dtype = q.dtype
    if q.device.type == "mps" and dtype != torch.float32 and torch_version() < (2, 13):
        q, k, v = q.float(), k.float(), v.float()
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return out.to(dtype)


def shared_attention(
    q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """Attention under ``mask``, (T, S) or (B, 1, T, S) bool, or under none; (B, T, H, D).

    Query heads that share a key head are stacked along the queries, so no key is copied.
    """
    B, T, H, D = q_BTHD.shape
    K = k_BSKD.shape[2]
    shared = H // K
    q = q_BTHD.reshape(B, T, K, shared, D).permute(0, 2, 3, 1, 4).reshape(B, K, shared * T, D)
    if mask is not None and shared > 1:
        mask = torch.cat([mask] * shared, dim=-2)
    out = _product(q, k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2), mask, False, scale)
    return out.reshape(B, K, shared, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def masked_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """All queries against all keys within anybody's reach, under one mask; (B, T, H, D).

    A window over everything needs no mask: that is plain causal attention.
    """
    queries = q_BTHD.shape[1]
    reach = window + queries
    k_BTKD, v_BTKD = k_BTKD[:, -reach:], v_BTKD[:, -reach:]
    keys, heads = k_BTKD.shape[1], q_BTHD.shape[2]
    if queries == 1:
        return shared_attention(q_BTHD, k_BTKD, v_BTKD, None, scale)
    if queries == keys and window >= keys - 1:
        k_BTHD, v_BTHD = share_heads(k_BTKD, heads), share_heads(v_BTKD, heads)
        q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
        return _product(q, k, v, None, True, scale).transpose(1, 2)
    mask = visible(queries, keys, window, q_BTHD.device)
    return shared_attention(q_BTHD, k_BTKD, v_BTKD, mask, scale)


def sliced_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """Each block of queries against the slice of keys that its window reaches; (B, T, H, D)."""
    queries, past = q_BTHD.shape[1], k_BTKD.shape[1] - q_BTHD.shape[1]
    blocks = []
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        keys = slice(max(0, past + start - window), past + stop)
        blocks.append(
            masked_attention(q_BTHD[:, start:stop], k_BTKD[:, keys], v_BTKD[:, keys], window, scale)
        )
    return torch.cat(blocks, dim=1)
