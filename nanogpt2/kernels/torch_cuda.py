"""Windowed attention that torch itself brings for NVIDIA GPUs: varlen (FlashAttention-2) and Flex.

Sources: FlashAttention-2 (Dao, arXiv 2307.08691), FlexAttention (Dong et al., arXiv 2412.05496).
Chapter: windows.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@functools.cache
def varlen_shares_heads() -> bool:
    """Whether this torch's varlen_attn takes fewer key heads than query heads."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def varlen_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """FlashAttention-2 over the batch as one ragged sequence, (B T, H, D): a view of our layout."""
    from torch.nn.attention.varlen import varlen_attn

    (B, Tq, H, _), (_, Tk, K, _) = q_BTHD.shape, k_BTKD.shape
    starts = torch.arange(B + 1, dtype=torch.int32, device=q_BTHD.device)
    shared: dict[str, Any] = {} if H == K else {"enable_gqa": True}
    out: Any = varlen_attn(
        q_BTHD.flatten(0, 1),
        k_BTKD.flatten(0, 1),
        v_BTKD.flatten(0, 1),
        starts * Tq,
        starts * Tk,
        Tq,
        Tk,
        scale=scale,
        window_size=(-1 if window >= Tk - 1 else window, 0),
        **shared,
    )
    return out.unflatten(0, (B, Tq))


def sliding_mask(queries: int, keys: int, window: int) -> Callable[..., Tensor]:
    """The window as FlexAttention's ``mask_mod(batch, head, query, key)``."""
    past = keys - queries

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        at = query + past
        return (key <= at) & (at - key <= window)

    return mask_mod


def _block_mask(queries: int, keys: int, window: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    mask_mod = sliding_mask(queries, keys, window)
    return create_block_mask(mask_mod, None, None, queries, keys, device=device)


_kept_block_mask = functools.lru_cache(maxsize=64)(_block_mask)


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex_attention(
    q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """FlexAttention with a block mask of the window; compiled on its own when called eagerly."""
    from torch.nn.attention import flex_attention as torch_flex

    q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTKD, v_BTKD))
    compiling = torch.compiler.is_compiling()
    build = _block_mask if compiling else _kept_block_mask
    flex: Any = torch_flex.flex_attention if compiling else _compiled_flex()
    mask = build(q.shape[2], k.shape[2], window, str(q.device))
    shared = q.shape[1] != k.shape[1]
    return flex(q, k, v, block_mask=mask, scale=scale, enable_gqa=shared).transpose(1, 2)
