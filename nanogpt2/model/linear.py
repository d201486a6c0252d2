"""A linear layer whose weight is a master: kept in its own precision, cast for each product."""

from __future__ import annotations

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
            return y if self.bias is None else y + self.bias.to(y.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)
