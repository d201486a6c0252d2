"""Muon: momentum, then the nearest orthogonal matrix as the step.

Source: Muon (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon); Polar Express (arXiv
2505.16932); the variance reduction is NorMuon's, by Li et al. (arXiv 2510.05491); cautious weight
decay (arXiv 2510.12402). Switches: MuonEq (rows brought to one norm before) and Muon+ (one norm
after). Chapter: muon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.optim.polar_express import polar_express


def shape_factor(rows: int, cols: int) -> float:
    """What the learning rate of a (rows, cols) matrix is multiplied by: max(1, rows/cols)^1/2."""
    return max(1.0, rows / cols) ** 0.5


def neuron_axis(rows: int, cols: int) -> int:
    """The axis NorMuon averages over: its paper's, the inputs of a neuron, where rows >= cols.

    For wide matrices the outputs: a variant of modded-nanogpt and nanochat, not of the paper.
    """
    return -1 if rows >= cols else -2


def second_moment_shape(count: int, rows: int, cols: int) -> tuple[int, int, int]:
    """Shape of NorMuon's state for ``count`` matrices: one number for each neuron."""
    return (count, rows, 1) if neuron_axis(rows, cols) == -1 else (count, 1, cols)


def equalize_rows(g: Tensor) -> Tensor:
    """MuonEq: every row of each (rows, cols) matrix brought to the mean square norm of its rows."""
    row = torch.linalg.vector_norm(g, dim=-1, keepdim=True).clamp_min(1e-6)
    target = torch.linalg.matrix_norm(g, keepdim=True) / g.size(-2) ** 0.5
    return g * (target / row)


def fix_norm(x: Tensor) -> Tensor:
    """Muon+: Frobenius norm sqrt(min(rows, cols)), the norm of an exactly orthogonal matrix."""
    norm = torch.linalg.matrix_norm(x.float(), keepdim=True).clamp_min(1e-10)
    return x * (min(x.shape[-2:]) ** 0.5 / norm)


def variance_scale(
    x: Tensor, second_moment: Tensor, weight2: Tensor, square: Tensor | None = None
) -> Tensor:
    """NorMuon: what divides each neuron by the root of its running mean square.

    The matrix norm is kept. ``x`` is (K, rows, cols); ``second_moment``, and what is returned,
    (K, rows, 1) or (K, 1, cols), fp32; the first is updated. ``square``: the means, if known.
    """
    if square is None:
        square = x.float().square().mean(neuron_axis(*x.shape[-2:]), keepdim=True)
    second_moment.lerp_(square, weight2)
    scale = second_moment.clamp_min(1e-10).rsqrt()
    # Norms before and after, from the means alone: one pass over x instead of three.
    before = square.sum((-2, -1), keepdim=True).sqrt()
    after = (square * scale.square()).sum((-2, -1), keepdim=True).sqrt().clamp_min(1e-10)
    return scale * (before / after)


def cautious_step(w: Tensor, x: Tensor, lr: Tensor, weight_decay: Tensor) -> None:
    """w <- w - lr x - lr wd w [x w >= 0], in place: decay only where the step shrinks w too."""
    w.sub_(lr * (x + weight_decay * w * (x * w >= 0)))


def take_step(
    w: Tensor, x: Tensor, second_moment: Tensor, lr: Tensor, weight_decay: Tensor, weight2: Tensor
) -> None:
    """From the direction ``x`` to the new ``w``, in place."""
    cautious_step(w, x * variance_scale(x, second_moment, weight2), lr, weight_decay)


def muon_update(
    w: Tensor,
    g: Tensor,
    momentum_buffer: Tensor,
    second_moment: Tensor,
    momentum: Tensor,
    lr: Tensor,
    weight_decay: Tensor,
    weight2: Tensor,
    iterations: int,
    divisor: float,
    row_equal: bool,
    norm_fixed: bool,
    dtype: torch.dtype,
    orthogonalize: Callable[..., Tensor] = polar_express,
    step: Callable[..., None] = take_step,
) -> None:
    """One step for stacked matrices (K, rows, cols), ``w`` and the state in place.

    ``lr`` already holds ``shape_factor``. Scalars are 0-d tensors, so that rates that change
    every step compile once. ``orthogonalize`` and ``step`` may be faster forms of these.
    """
    momentum_buffer.lerp_(g, 1 - momentum)
    g = g.lerp(momentum_buffer, momentum)  # Nesterov: look ahead by one more momentum step
    if row_equal:
        g = equalize_rows(g)
    x = orthogonalize(g, iterations, divisor, dtype)
    if norm_fixed:
        x = fix_norm(x)
    step(w, x, second_moment, lr, weight_decay, weight2)


def muon_scalars(group: dict[str, Any], rows: int, cols: int) -> list[Tensor]:
    """The 0-d tensors of ``muon_update`` for matrices of (rows, cols) in ``group``."""
    lr = group["lr"] * shape_factor(rows, cols)
    values = (group["momentum"], lr, group["weight_decay"], 1 - group["beta2"])
    return [torch.tensor(value, dtype=torch.float32) for value in values]
