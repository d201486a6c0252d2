"""Changed models of the chapter on norms, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.lab.seams import Patch, patched


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


def over_time() -> Patch:
    """Failure: the mean square is taken over the row's positions in place of the channels."""

    def wrong(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-7).rsqrt()

    return patched("nanogpt2.model.norm.rms_norm", wrong)


CHANGES: dict[str, dict[str, Any]] = {
    "a learned gain on every norm": {"norm_learnable": True},
    "LayerNorm, without gain and shift": {"norm": "layer"},
    "LayerNorm, with gain and shift": {"norm": "layer", "norm_learnable": True},
    "DyT in place of every norm but QK-norm": {},
    "no norm after the embedding": {"embedding_norm": False},
    "no QK-norm": {"qk_norm": False},
    "no softcap": {"logit_softcap": 0.0},
    "a tied head": {"tied_head": True, "wte_std": 0.02},
    "GELU in place of squared ReLU": {"activation": "gelu"},
}
"""What is compared with the book's baseline, one change each."""
WITHIN: dict[str, Callable[[], Patch]] = {"DyT in place of every norm but QK-norm": dynamic_tanh}
