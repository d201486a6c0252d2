"""Changed models of the chapter on norms, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variants import dynamic_tanh


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
