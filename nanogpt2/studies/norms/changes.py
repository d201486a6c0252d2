"""Changed models of the chapter on norms, and what is recorded of them."""

from __future__ import annotations

from torch import Tensor

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variants import dynamic_tanh
from nanogpt2.lab.variations import Variation


def over_time() -> Patch:
    """Failure: the mean square is taken over the row's positions in place of the channels."""

    def wrong(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-7).rsqrt()

    return patched("nanogpt2.model.norm.rms_norm", wrong)


VARIATIONS = {
    "gains": Variation(
        "a learned gain on every norm", "0", "nearly all gains fold into the matrices",
        {"norm_learnable": True},
    ),
    "centred": Variation(
        "LayerNorm, without gain and shift", "0", "one direction less of many", {"norm": "layer"}
    ),
    "layer_norm": Variation(
        "LayerNorm, with gain and shift", "0", "comparable by the paper on RMSNorm",
        {"norm": "layer", "norm_learnable": True},
    ),
    "dyt": Variation(
        "DyT in place of every norm but QK-norm", "+",
        "a fixed alpha cannot follow a stream that grows", within=dynamic_tanh,
    ),
}  # fmt: skip
"""other norms than RMSNorm without parameters"""
