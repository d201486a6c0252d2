"""A changed optimizer of the chapter on ZeRO-2: gradients that are never divided."""

from __future__ import annotations

from torch import Tensor, nn

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.optim.sharded import gradient_of


def summed_gradients(world: int = 4) -> Patch:
    """Failure: gradients of ``world`` ranks are added and never divided by their number."""

    def summed(p: nn.Parameter) -> Tensor:
        return gradient_of(p) * world

    return patched("nanogpt2.optim.sharded.gradient_of", summed)
