"""Changed loops of the chapter: faults that a curve shows, and sums in another order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.small_data import SmallData
from nanogpt2.model.gpt import GPT


def stuck_loader() -> Patch:
    """Failure: every step is given the first step's rows again."""
    right = SmallData.batch

    def first(
        data: SmallData, step: int, batch_size: int, length: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        return right(data, 0, batch_size, length, seed)

    return patched("nanogpt2.lab.small_data.SmallData.batch", first)


def forgotten_zero() -> Patch:
    """Failure: gradients are never cleared, so that every step has those of all before it."""

    def nothing(model: GPT, set_to_none: bool = True) -> None:
        pass

    return patched("nanogpt2.model.gpt.GPT.zero_grad", nothing)


@dataclass(frozen=True)
class RowsTurned:
    """Each step's rows in another order: the same sums, added up otherwise."""

    by: int
    """how many places every row moves on"""

    def __call__(self) -> Patch:
        right = SmallData.batch

        def turned(
            data: SmallData, step: int, batch_size: int, length: int, seed: int
        ) -> tuple[Tensor, Tensor]:
            inputs, targets = right(data, step, batch_size, length, seed)
            return inputs.roll(self.by, 0), targets.roll(self.by, 0)

        return patched("nanogpt2.lab.small_data.SmallData.batch", turned)
