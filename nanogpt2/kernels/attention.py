"""Causal attention with a sliding window: one function, many kernels.

``windows.plain_attention`` says what it computes. A window of w saves the work of all keys outside
it only where a kernel skips them; which kernel does differs by machine, and ``backends`` chooses.
Chapter: windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.backends import BACKENDS, choose_backend
from nanogpt2.kernels.portable import shared_attention
from nanogpt2.kernels.windows import sees


def attention(
    q_BTHD: Tensor,
    k_BSKD: Tensor,
    v_BSKD: Tensor,
    window: int,
    backend: str = "auto",
    scale: float | None = None,
) -> Tensor:
    """Causal attention of every query over itself and the ``window`` keys before it.

    Args:
        q_BTHD: queries (B, T, H, D).
        k_BSKD: keys (B, S, K, D), S >= T: the last query stands at the last key; K divides H.
        v_BSKD: values, shaped like the keys.
        window: keys visible before the query's own; S - 1 or more is full causal attention.
        backend: "auto" or one of ``BACKENDS``.
        scale: factor on the scores, 1 / sqrt(D) by default.

    Returns:
        (B, T, H, D).

    Raises:
        UserError: the backend asked for is unknown or cannot serve here.
        ValueError: shapes do not fit each other.
    """
    (B, T, H, D), (_, S, K, _) = q_BTHD.shape, k_BSKD.shape
    if k_BSKD.shape != v_BSKD.shape or k_BSKD.shape != (B, S, K, D):
        raise ValueError(
            f"queries {tuple(q_BTHD.shape)}, keys {tuple(k_BSKD.shape)} and values "
            f"{tuple(v_BSKD.shape)} do not fit each other"
        )
    if H % K or S < T:
        raise ValueError(
            f"{H} query heads need a divisor of key heads, not {K}; "
            f"{T} queries need at least as many keys, not {S}"
        )
    if window < 0:
        raise UserError(f"the window is {window}; it counts keys to the left and is at least 0")
    name = choose_backend(backend, q_BTHD.device.type, q_BTHD.dtype, D, H, K, T, S, window)
    return BACKENDS[name](q_BTHD, k_BSKD, v_BSKD, window, scale=scale)


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
    new_T, key_S = (torch.arange(n, device=q_BTHD.device) for n in (T, S))
    query_BT = (lengths_B[:, None] - T + new_T).clamp(min=0)
    seen_BTS = sees(query_BT[..., None], key_S, window)
    return shared_attention(q_BTHD, k_BSKD, v_BSKD, seen_BTS[:, None], scale)
