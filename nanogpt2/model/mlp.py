"""The MLP: width -> 4 width -> width, squared ReLU between.

Sources: Primer (So et al., arXiv 2109.08668) for relu(x)^2; GELU (arXiv 1606.08415) and SwiGLU
(Shazeer, arXiv 2002.05202) as the switches. Chapter: norms.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.model.linear import Linear


class MLP(nn.Module):
    """Two matrices and a nonlinearity; SwiGLU has a third matrix, ``c_gate``."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = Linear(config.n_embd, config.mlp_dim, bias=config.bias)
        if config.activation == "swiglu":
            self.c_gate = Linear(config.n_embd, config.mlp_dim, bias=config.bias)
        self.c_proj = Linear(config.mlp_dim, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        h = self.c_fc(x)
        if self.activation == "relu2":
            h = F.relu(h).square()
        elif self.activation == "gelu":
            h = F.gelu(h, approximate="tanh")  # GPT-2's form
        else:
            h = h * F.silu(self.c_gate(x))
        return self.c_proj(h)
