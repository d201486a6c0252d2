"""What the residual stream carries besides the blocks: per-layer scalars, smear, backout.

Sources: residual scalars and x0 as in modded-nanogpt (K. Jordan and contributors); smear and
backout from the sixth record. Chapter: value_embeddings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smear(x_BTC: Tensor, previous_BTC: Tensor, gate_BT1: Tensor, strength: Tensor) -> Tensor:
    """x[t] + lambda sigmoid(gate[t]) x[t-1]; ``previous`` is ``previous_token(x)``."""
    return x_BTC + strength.to(x_BTC.dtype) * torch.sigmoid(gate_BT1) * previous_BTC


def previous_token(x_BTC: Tensor) -> Tensor:
    """x one token late: zeros, then x without its last token."""
    return F.pad(x_BTC[:, :-1], (0, 0, 1, 0))


def linear_start(ends: tuple[float, float], n_layer: int) -> Tensor:
    """(L,): from the first layer's value to the last's; the first's alone where L is 1."""
    return torch.linspace(ends[0], ends[1], n_layer)
