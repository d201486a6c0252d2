"""Causal attention with a sliding window: one function, many kernels.

``windows.plain_attention`` says what it computes. A window of w saves the work of all keys outside
it only where a kernel skips them; which kernel does differs by machine, and ``backends`` chooses.
Chapter: windows.
"""

from __future__ import annotations

from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.backends import BACKENDS, choose_backend


def attention(
    q_BTHD: Tensor,
    k_BSKD: Tensor,
    v_BSKD: Tensor,
    window: int,
    backend: str = "auto",
) -> Tensor:
    """Causal attention of every query over itself and the ``window`` keys before it.

    Args:
        q_BTHD: queries (B, T, H, D).
        k_BSKD: keys (B, S, K, D), S >= T: the last query stands at the last key; K divides H.
        v_BSKD: values, shaped like the keys.
        window: keys visible before the query's own; S - 1 or more is full causal attention.
        backend: "auto" or one of ``BACKENDS``.

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
    return BACKENDS[name](q_BTHD, k_BSKD, v_BSKD, window)
