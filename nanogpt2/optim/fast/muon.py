"""The end of Muon's step in bands of rows that stay in a processor's cache. Chapter: muon."""

from __future__ import annotations

import torch
from torch import Tensor

from nanogpt2.optim import muon as definition

BAND = 1 << 17
"""elements: direction, matrix, and what is worked out from them stay in the cache"""


def take_step_in_bands(
    w: Tensor, x: Tensor, second_moment: Tensor, lr: Tensor, weight_decay: Tensor, weight2: Tensor
) -> None:
    """``take_step``, some rows of all matrices (K, rows, cols) at a time, but for rounding."""
    count, rows, cols = x.shape
    step = max(1, BAND // (count * cols))
    bands = [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
    axis = definition.neuron_axis(rows, cols)
    means = [x[:, band].float().square().mean(axis, keepdim=True) for band in bands]
    if axis == -1:
        square = torch.cat(means, -2)
    else:
        weights = [(band.stop - band.start) / rows for band in bands]
        square = sum((m * w for m, w in zip(means, weights, strict=True)), torch.zeros(()))
    scale = definition.variance_scale(x, second_moment, weight2, square).expand_as(x)
    for band in bands:
        definition.cautious_step(w[:, band], x[:, band] * scale[:, band], lr, weight_decay)
