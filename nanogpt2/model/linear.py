"""A linear layer whose weight is a master: kept in its own precision, cast for each product.

Chapter: plain_gpt.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.kernels.fp8 import fp8_linear


class Linear(nn.Linear):
    """y = x W^T in the dtype of x; in fp8 while training, where ``fp8`` is set."""

    fp8 = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.fp8 and self.training:
            y = fp8_linear(x, self.weight)
        elif self.weight.dtype == x.dtype or torch.compiler.is_compiling():
            y = F.linear(x, self.weight.to(x.dtype))
        else:
            y = _CastTwice.apply(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _CastTwice(torch.autograd.Function):
    """The product that keeps only the master for the backward pass, and casts it there again.

    Autograd would keep the cast copy as well: 2 bytes a parameter, through the whole step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d_weight = grad.flatten(0, -2).mT @ x.flatten(0, -2)
        return grad @ weight.to(grad.dtype), d_weight.to(weight.dtype)
