"""Windowed causal attention out of `scaled_dot_product_attention` alone: runs on every device.

All scores within anybody's reach are computed, and a mask hides what a window excludes: correct
everywhere, and no faster for the window. ``fast.banded`` cuts the same work into blocks. Chapter:
sliding windows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.kernels.windows import window_mask

_PRECISE_MPS = torch.__version__ >= "2.13"
"""older kernels of Apple GPUs lose bf16's precision"""


def share_heads(kv_BTKD: Tensor, heads: int) -> Tensor:
    """Repeat every key/value head for the query heads that share it: (B, T, H, D)."""
    shared = heads // kv_BTKD.shape[2]
    return kv_BTKD if shared == 1 else kv_BTKD.repeat_interleave(shared, dim=2)


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """SDPA in (B, H, T, D), on Apple GPUs in fp32 where need be."""
    dtype = q.dtype
    if q.device.type == "mps" and dtype != torch.float32 and not _PRECISE_MPS:
        q, k, v = q.float(), k.float(), v.float()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).to(dtype)


def shared_attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, mask: Tensor | None) -> Tensor:
    """Attention under ``mask``, (T, S) or (B, 1, T, S) bool, or under none; (B, T, H, D).

    Query heads that share a key head are stacked along the queries, so no key is copied.
    """
    B, T, H, D = q_BTHD.shape
    K = k_BSKD.shape[2]
    shared = H // K
    q = q_BTHD.reshape(B, T, K, shared, D).permute(0, 2, 3, 1, 4).reshape(B, K, shared * T, D)
    if mask is not None and shared > 1:
        mask = torch.cat([mask] * shared, dim=-2)
    out = _product(q, k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2), mask, False)
    return out.reshape(B, K, shared, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def masked_attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int) -> Tensor:
    """All queries against all keys within anybody's reach, under one mask; (B, T, H, D).

    A window over everything needs no mask: that is plain causal attention.
    """
    queries = q_BTHD.shape[1]
    reach = window + queries
    k_BSKD, v_BSKD = k_BSKD[:, -reach:], v_BSKD[:, -reach:]
    keys, heads = k_BSKD.shape[1], q_BTHD.shape[2]
    if queries == 1:
        return shared_attention(q_BTHD, k_BSKD, v_BSKD, None)
    if queries == keys and window >= keys - 1:
        k_BSHD, v_BSHD = share_heads(k_BSKD, heads), share_heads(v_BSKD, heads)
        q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BSHD, v_BSHD))
        return _product(q, k, v, None, True).transpose(1, 2)
    mask = window_mask(queries, keys, window, q_BTHD.device)
    return shared_attention(q_BTHD, k_BSKD, v_BSKD, mask)
