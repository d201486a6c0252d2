"""Parts of other models that more than one chapter puts in the place of the book's own.

Chapters: norms, value_embeddings, what_did_not_work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.lab.seams import Patch, patched

PRIMES = (36313, 27191)


class DyT(nn.Module):
    """Dynamic tanh (Zhu et al., arXiv 2503.10622) in a norm's place: gain tanh(alpha x) + shift."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.weight * torch.tanh(self.alpha * x) + self.bias


def dynamic_tanh() -> Patch:
    """Models made within the block have DyT where the others have a norm (QK-norm stays)."""
    return patched("nanogpt2.model.gpt.Norm", DyT)


def bigram_rows(idx: Tensor, rows: int) -> Tensor:
    """Addresses (B, T) of pairs: a hash of each token and the one before it (0 at the start)."""
    before = F.pad(idx[:, :-1], (1, 0))
    return (PRIMES[0] * idx + PRIMES[1] * before) % rows
