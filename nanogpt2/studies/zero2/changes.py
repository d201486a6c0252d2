"""A changed optimizer of the chapter on ZeRO-2: gradients that are never divided."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nanogpt2.lab.seams import patched
from nanogpt2.optim.sharded import gradient_of


@contextmanager
def summed_gradients(world: int = 4) -> Iterator[None]:
    """Failure: gradients of ``world`` ranks are added and never divided by their number."""

    def summed(p: nn.Parameter) -> Tensor:
        return gradient_of(p) * world

    with patched("nanogpt2.optim.sharded.gradient_of", summed):
        yield
