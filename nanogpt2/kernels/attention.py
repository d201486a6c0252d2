"""Causal attention with a sliding window: one function, many backends."""

from __future__ import annotations

from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.portable import banded_attention, grouped, masked_attention

__all__ = ["attention", "cached_attention"]

BACKENDS = ("auto", "fa3", "fa4", "fa2", "varlen", "flex", "banded", "sdpa")


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
        backend: one of ``BACKENDS``.
        scale: factor on the scores, 1 / sqrt(D) by default.

    Returns:
        (B, Tq, H, D).
    """
    if backend not in BACKENDS:
        raise UserError(f"unknown attention backend {backend!r}; choose one of {BACKENDS}")
    if backend == "sdpa" or window >= k_BTKD.shape[1] - 1:
        return masked_attention(q_BTHD, k_BTKD, v_BTKD, window, scale)
    return banded_attention(q_BTHD, k_BTKD, v_BTKD, window, scale)


def cached_attention(
    q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, lengths_B: Tensor, window: int
) -> Tensor:
    """Attention of new tokens over a cache whose rows hold different numbers of tokens.

    Args:
        q_BTHD: queries of the T newest tokens of each row.
        k_BSKD: keys, room for S tokens a row; the first ``lengths_B[b]`` are valid, the new
            ones included.
        v_BSKD: values, shaped like the keys.
        lengths_B: valid tokens of each row, at least T.
        window: keys visible before the query's own.

    Returns:
        (B, T, H, D).
    """
    import torch
    import torch.nn.functional as F

    T, S = q_BTHD.shape[1], k_BSKD.shape[1]
    key = torch.arange(S, device=q_BTHD.device)
    query_BT = lengths_B[:, None] - T + torch.arange(T, device=q_BTHD.device)
    mask = (key <= query_BT[..., None]) & (key >= query_BT[..., None] - window)
    q = q_BTHD.transpose(1, 2)
    k, v = (grouped(x.transpose(1, 2), q.shape[1]) for x in (k_BSKD, v_BSKD))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None]).transpose(1, 2)
