"""Rotary positions: each pair of channels turns by an angle proportional to its position.

Source: RoFormer (Su et al., arXiv 2104.09864). Channel i is paired with i + D/2 (the half-split
layout), and the rotation is by minus theta; both are conventions, since only the difference of two
positions enters a score. Chapter: rotary_positions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(
    length: int,
    head_dim: int,
    base: float = 10_000.0,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """cos and sin of position x frequency, each (length, D/2); made in fp32, kept in ``dtype``.

    Frequency i is base^(-2i/D) radians per position. Reference: RoFormer, section 3.2.2.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    frequency = base ** (-pairs / head_dim)
    position = torch.arange(length, dtype=torch.float32, device=device)
    angle = torch.outer(position, frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair (i, i + D/2) of each head by the angle of its position; keeps dtype.

    ``cos`` and ``sin`` are (T, D/2), or (B, T, D/2) where rows stand at positions of their own.
    """
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # the same angle for every head
    x1, x2 = x_BTHD.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1).to(x_BTHD.dtype)
