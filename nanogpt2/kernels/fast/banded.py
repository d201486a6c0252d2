"""Banded attention: a window's savings on any machine, and at their best on a processor.

Forward, a block of 256 queries meets the slice of keys that its window reaches. Backward, a block
of 256 keys meets the queries that can see it: then the gradients of keys and values come out whole,
and only the queries' are added up. On a processor both passes stand in one operator around torch's
flash kernel, which saves autograd's copies around every slice; elsewhere the forward pass is left
to autograd. Source: Longformer (Beltagy et al., arXiv 2004.05150, section 3). Chapter: windows.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from nanogpt2.kernels.operator import KERNELS, empty_outputs, windowed_forward
from nanogpt2.kernels.portable import masked_attention, share_heads
from nanogpt2.kernels.windows import sees

BLOCK = 256
"""Queries in a block: long enough for good matrix products, short beside the window."""

_aten = torch.ops.aten


def banded_attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int) -> Tensor:
    """Causal attention over a sliding window, block by block; (B, T, H, D)."""
    queries, past = q_BTHD.shape[1], k_BSKD.shape[1] - q_BTHD.shape[1]
    if q_BTHD.device.type == "cpu" and past == 0:
        k_BSHD, v_BSHD = (share_heads(x, q_BTHD.shape[2]) for x in (k_BSKD, v_BSKD))
        return windowed_forward(q_BTHD, k_BSHD, v_BSHD, window, "banded")[0]
    blocks = []
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        keys = slice(max(0, past + start - window), past + stop)
        k, v = k_BSKD[:, keys], v_BSKD[:, keys]
        blocks.append(masked_attention(q_BTHD[:, start:stop], k, v, window))
    return torch.cat(blocks, dim=1)


@functools.lru_cache(maxsize=8)
def _bias(n_queries: int, n_keys: int, ahead: int, window: int, dtype: torch.dtype) -> Tensor:
    """0 where a query sees a key, else -inf; the first query stands ``ahead`` of the first key."""
    query, key = torch.arange(n_queries)[:, None] + ahead, torch.arange(n_keys)[None, :]
    hidden = ~sees(query, key, window)
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))


def _masking(
    queries: range, keys: range, window: int, dtype: torch.dtype
) -> tuple[bool, Tensor | None]:
    """(is_causal, mask) for the kernel: no mask where plain causal attention says the same."""
    if queries == keys and len(keys) <= window + 1:
        return True, None
    return False, _bias(len(queries), len(keys), queries.start - keys.start, window, dtype)


def _forward(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    out, lse = empty_outputs(q)
    T = q.shape[1]
    q, k, v, out_BHTD = (x.transpose(1, 2) for x in (q, k, v, out))
    for start in range(0, T, BLOCK):
        queries = range(start, min(start + BLOCK, T))
        keys = range(max(0, start - window), queries.stop)
        at, seen = slice(start, queries.stop), slice(keys.start, keys.stop)
        causal, mask = _masking(queries, keys, window, q.dtype)
        out_BHTD[:, :, at], lse[:, :, at] = _aten._scaled_dot_product_flash_attention_for_cpu(
            q[:, :, at], k[:, :, seen], v[:, :, seen], 0.0, causal, attn_mask=mask
        )
    return out, lse


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    T = q.shape[1]
    dq = torch.zeros_like(q, dtype=lse.dtype, memory_format=torch.contiguous_format)
    dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k, v))
    grad, q, k, v, out, dq_, dk_, dv_ = (
        x.transpose(1, 2) for x in (grad, q, k, v, out, dq, dk, dv)
    )
    for start in range(0, T, BLOCK):
        keys = range(start, min(start + BLOCK, T))
        queries = range(start, min(keys.stop + window, T))
        at, by = slice(start, keys.stop), slice(start, queries.stop)
        causal, mask = _masking(queries, keys, window, q.dtype)
        part, dk_[:, :, at], dv_[:, :, at] = (
            _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(grad[:, :, by], q[:, :, by], k[:, :, at], v[:, :, at]),
                *(out[:, :, by], lse[:, :, by], 0.0, causal),
                attn_mask=mask,
            )
        )
        dq_[:, :, by] += part
    return dq.to(k.dtype), dk, dv


KERNELS["banded"] = (_forward, _backward)
