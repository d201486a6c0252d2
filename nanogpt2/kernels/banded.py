"""Banded attention: a window's savings on any machine, and at their best on CPUs.

Forward, a block of 256 queries meets the slice of keys that its window reaches. Backward, a block
of 256 keys meets the queries that can see it: then the gradients of keys and values come out whole,
and only the queries' are added up. On CPU both passes are one custom op around torch's flash
kernel, which saves autograd's copies around every slice. The merged log-sum-exp makes each slice's
softmax the right one in the backward pass, as in FlashAttention-2 (Dao, arXiv 2307.08691,
section 3.1). Chapter: windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanogpt2.kernels.portable import BLOCK, share_heads, sliced_attention

_aten = torch.ops.aten


def banded_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """Causal attention over a sliding window, block by block; (B, T, H, D)."""
    if q_BTHD.device.type != "cpu" or q_BTHD.shape[1] != k_BTKD.shape[1]:
        return sliced_attention(q_BTHD, k_BTKD, v_BTKD, window, scale)
    heads = q_BTHD.shape[2]
    k_BTHD, v_BTHD = share_heads(k_BTKD, heads), share_heads(v_BTKD, heads)
    scale = q_BTHD.shape[3] ** -0.5 if scale is None else scale
    return _banded_forward(q_BTHD, k_BTHD, v_BTHD, window, scale)[0]


def _band(queries: range, keys: range, window: int, dtype: torch.dtype) -> Tensor:
    """0 where a query sees a key, else -inf; (queries, keys)."""
    query = torch.arange(queries.start, queries.stop)[:, None]
    key = torch.arange(keys.start, keys.stop)[None, :]
    seen = (key <= query) & (key >= query - window)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


class _Bands:
    """The masks of one sweep: blocks that lie alike against their slice share one."""

    def __init__(self, window: int, dtype: torch.dtype) -> None:
        self.window, self.dtype = window, dtype
        self.masks: dict[tuple[int, int, int], Tensor] = {}

    def kernel_arguments(self, queries: range, keys: range) -> tuple[bool, Tensor | None]:
        """(is_causal, mask): no mask where plain causal attention says the same."""
        if queries == keys and len(keys) <= self.window + 1:
            return True, None
        alike = (len(queries), len(keys), queries.start - keys.start)
        if alike not in self.masks:
            self.masks[alike] = _band(queries, keys, self.window, self.dtype)
        return False, self.masks[alike]


@torch.library.custom_op("nanogpt2::banded_forward", mutates_args=(), device_types="cpu")
def _banded_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """q, k, v (B, T, H, D) -> output (B, T, H, D), log-sum-exp of the scores (B, H, T)."""
    out, lse = _empty_outputs(q)
    T, bands = q.shape[1], _Bands(window, q.dtype)
    q, k, v, out_BHTD = (x.transpose(1, 2) for x in (q, k, v, out))
    for start in range(0, T, BLOCK):
        queries = range(start, min(start + BLOCK, T))
        keys = range(max(0, start - window), queries.stop)
        at, seen = slice(queries.start, queries.stop), slice(keys.start, keys.stop)
        causal, mask = bands.kernel_arguments(queries, keys)
        out_BHTD[:, :, at], lse[:, :, at] = _aten._scaled_dot_product_flash_attention_for_cpu(
            q[:, :, at], k[:, :, seen], v[:, :, seen], 0.0, causal, attn_mask=mask, scale=scale
        )
    return out, lse


@torch.library.custom_op("nanogpt2::banded_backward", mutates_args=(), device_types="cpu")
def _banded_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, each (B, T, H, D)."""
    T, bands = q.shape[1], _Bands(window, q.dtype)
    dq = torch.zeros_like(q, dtype=lse.dtype, memory_format=torch.contiguous_format)
    dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k, v))
    grad, q, k, v, out, dq_, dk_, dv_ = (
        x.transpose(1, 2) for x in (grad, q, k, v, out, dq, dk, dv)
    )
    for start in range(0, T, BLOCK):
        keys = range(start, min(start + BLOCK, T))
        queries = range(start, min(keys.stop + window, T))
        at, by = slice(keys.start, keys.stop), slice(queries.start, queries.stop)
        causal, mask = bands.kernel_arguments(queries, keys)
        part, dk_[:, :, at], dv_[:, :, at] = (
            _aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(grad[:, :, by], q[:, :, by], k[:, :, at], v[:, :, at]),
                *(out[:, :, by], lse[:, :, by], 0.0, causal),
                attn_mask=mask,
                scale=scale,
            )
        )
        dq_[:, :, by] += part
    return dq.to(k.dtype), dk, dv


def _empty_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp, which is at least fp32."""
    B, T, H, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=wide)


@_banded_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    return _empty_outputs(q)


@_banded_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = _banded_backward(grad, *ctx.saved_tensors, ctx.window, ctx.scale)
    return *grads, None, None


_banded_forward.register_autograd(_differentiate, setup_context=_save)
