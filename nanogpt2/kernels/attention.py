"""Causal attention with a sliding window: one function, many backends.

A window of w lets a query see itself and the w keys before it, and saves the FLOPs of all others
only where a kernel skips them. Which kernel does differs by machine; ``nanogpt2.kernels.backends``
has the rules: FlashAttention 3 or 4 on Hopper, FlashAttention-2 on Ampere and later (the package,
or torch's ``varlen_attn``), blocks of SDPA anywhere else. Sources: Longformer (Beltagy et al.,
arXiv 2004.05150), Mistral 7B (2310.06825), grouped-query attention (Ainslie et al., 2305.13245).
Chapter: windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.backends import (
    BACKENDS,
    Case,
    Verdict,
    announcement,
    describe_backends,
    resolve,
)
from nanogpt2.kernels.portable import shared_attention
from nanogpt2.kernels.tracing import asked_while_tracing

__all__ = [
    "BACKENDS",
    "Verdict",
    "announcement",
    "attention",
    "cached_attention",
    "choose_backend",
    "describe_backends",
]


@asked_while_tracing
def choose_backend(
    backend: str,
    device: str,
    dtype: torch.dtype,
    head_dim: int,
    n_head: int,
    n_kv_head: int,
    queries: int,
    keys: int,
    window: int,
) -> str:
    """The name of the backend that serves; UserError where the one asked for cannot.

    Under torch.compile this runs once, while tracing, and its answer is part of the graph.
    """
    case = Case.of(device, dtype, head_dim, n_head, n_kv_head, queries, keys, window)
    return resolve(backend, case)


def attention(
    q_BTHD: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    window: int,
    backend: str = "auto",
    scale: float | None = None,
) -> Tensor:
    """Causal attention of every query over itself and the ``window`` keys before it.

    Args:
        q_BTHD: queries (B, Tq, H, D).
        k_BTKD: keys (B, Tk, K, D), Tk >= Tq: the last query stands at the last key; K divides H.
        v_BTKD: values, shaped like the keys.
        window: keys visible before the query's own; Tk - 1 or more is full causal attention.
        backend: "auto" or one of ``BACKENDS``.
        scale: factor on the scores, 1 / sqrt(D) by default.

    Returns:
        (B, Tq, H, D).

    Raises:
        UserError: the backend asked for is unknown or cannot serve here.
        ValueError: shapes do not fit each other.
    """
    (B, queries, heads, size), (_, keys, kv_heads, _) = q_BTHD.shape, k_BTKD.shape
    if k_BTKD.shape != v_BTKD.shape or k_BTKD.shape != (B, keys, kv_heads, size):
        raise ValueError(
            f"queries {tuple(q_BTHD.shape)}, keys {tuple(k_BTKD.shape)} and values "
            f"{tuple(v_BTKD.shape)} do not fit each other"
        )
    if heads % kv_heads or keys < queries:
        raise ValueError(
            f"{heads} query heads need a divisor of key heads, not {kv_heads}; "
            f"{queries} queries need at least as many keys, not {keys}"
        )
    if window < 0:
        raise UserError(f"the window is {window}; it counts keys to the left and is at least 0")
    device = q_BTHD.device.type
    name = choose_backend(
        backend, device, q_BTHD.dtype, size, heads, kv_heads, queries, keys, window
    )
    return BACKENDS[name](q_BTHD, k_BTKD, v_BTKD, window, scale=scale)


def cached_attention(
    q_BTHD: Tensor,
    k_BSKD: Tensor,
    v_BSKD: Tensor,
    lengths_B: Tensor,
    window: int,
    scale: float | None = None,
) -> Tensor:
    """Attention of new tokens over a cache whose rows hold different numbers of tokens.

    Args:
        q_BTHD: queries of the T newest tokens of each row.
        k_BSKD: keys, room for S tokens a row; of row b the first ``lengths_B[b]`` are valid, the
            new ones included.
        v_BSKD: values, shaped like the keys.
        lengths_B: valid tokens of each row. A row with fewer than T, so one with padding among
            its queries, gets numbers without meaning for those queries, and no NaN.
        window: keys visible before the query's own.
        scale: factor on the scores, 1 / sqrt(D) by default.

    Returns:
        (B, T, H, D).
    """
    T, S = q_BTHD.shape[1], k_BSKD.shape[1]
    new = torch.arange(T, device=q_BTHD.device)
    query_BT1 = (lengths_B[:, None] - T + new).clamp(min=0)[..., None]
    key = torch.arange(S, device=q_BTHD.device)
    seen_BTS = (key <= query_BT1) & (key >= query_BT1 - window)
    return shared_attention(q_BTHD, k_BSKD, v_BSKD, seen_BTS[:, None], scale)
