"""Normalization: RMSNorm without parameters, and what it replaced.

Source: RMSNorm (Zhang and Sennrich, arXiv 1910.07467); LayerNorm (Ba et al., arXiv 1607.06450).
Chapter: norms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig


def rms_norm(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, any leading shape; keeps dtype.

    ``eps`` is torch's default. Sums run in fp32 inside the kernel, also for bf16 input.
    """
    return F.rms_norm(x, (x.size(-1),), None if gain is None else gain.to(x.dtype))


class Norm(nn.Module):
    """The norm that ``config.norm`` and ``config.norm_learnable`` name, over the last axis."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.kind = config.norm
        learnable = config.norm_learnable
        self.weight = nn.Parameter(torch.ones(config.n_embd)) if learnable else None
        shifts = learnable and config.norm == "layer"
        self.bias = nn.Parameter(torch.zeros(config.n_embd)) if shifts else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if self.kind == "rms":
            return rms_norm(x, self.weight)
        gain, shift = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(x, (x.size(-1),), gain, shift)
