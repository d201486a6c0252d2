"""How many rows of a run fit a device's memory, and what would fit where none does.

Chapter: speedrun.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from nanogpt2.depth import Batch, Dial, dial, shape_batch
from nanogpt2.errors import UserError
from nanogpt2.kernels.logits import all_fit
from nanogpt2.machines import GB, Machine
from nanogpt2.memory import LOGIT_BYTES, Memory, memory_of_process, memory_per_rank
from nanogpt2.recipes import Recipe

USABLE = 0.92
"""part of a device's memory that is ours; the driver and fragmentation take the rest"""


@dataclass(frozen=True)
class Room:
    """A device of ``machine``, and what a model of ``recipe`` takes of its memory."""

    recipe: Recipe
    machine: Machine
    precision: str
    """of products"""
    compiled: bool = True
    recompute: bool = False

    @property
    def usable(self) -> float:
        """Bytes."""
        return USABLE * self.machine.memory_bytes

    def memory(self, at: Dial, rows: int, recompute: bool = False) -> Memory:
        """Of a device that takes ``rows`` rows a pass."""
        half, tables = self.precision != "fp32", self.precision in ("bf16", "fp8")
        recompute, ranks = recompute or self.recompute, self.machine.devices
        if self.machine.is_processor:
            tokens = at.batch_tokens // ranks
            return memory_of_process(at.model, self.recipe, ranks, rows, tokens, half, recompute)
        return memory_per_rank(
            at.model,
            self.recipe,
            ranks,
            rows,
            half,
            tables and self.machine.is_gpu,
            recompute,
            LOGIT_BYTES["compiled" if self.compiled else "eager"]
            if self.precision == "fp8" or self.holds_logits(at, rows)
            else 0,
        )

    def holds_logits(self, at: Dial, rows: int) -> bool:
        """Whether the loss has all logits at once: the fastest, where a GPU has room for them."""
        free = self.machine.memory_bytes - 4 * at.parameters["total"]
        logits = rows * at.model.sequence_len * at.model.vocab_size
        return self.machine.is_gpu and self.precision != "fp32" and all_fit(logits, free)

    def holds(self, at: Dial, rows: int = 1) -> bool:
        """Whether so many rows a pass fit."""
        return self.memory(at, rows).peak <= self.usable

    def fit(self, at: Dial, most_rows: int | None = None) -> tuple[Batch, Memory, list[str]]:
        """The batch by the most rows that fit, the memory they take, and why it does not fit.

        At most ``most_rows``; None: the recipe's, and on a GPU more, while the loss is the fastest.
        """
        most = most_rows or self.recipe.device_batch_size

        def shaped(rows: int) -> Batch:
            return shape_batch(at.batch_tokens, at.model.sequence_len, self.machine.devices, rows)

        try:
            batch = shaped(most)
        except UserError as error:
            return Batch(1, 1, at.batch_tokens), self.memory(at, 1), [f"{error}, or other devices"]
        while batch.rows > 1 and not self.holds(at, batch.rows):
            batch = shaped(batch.rows - 1)
        while most_rows is None and self.machine.is_gpu and batch.rows == most:
            more = shaped(most := 2 * most)
            if self.holds_logits(at, more.rows) and self.holds(at, more.rows):
                batch = more
        needed = self.memory(at, batch.rows)
        if needed.peak <= self.usable:
            return batch, needed, []
        why = (
            f"one row at a time needs {needed.peak / GB:.1f} GB and a device has "
            f"{self.usable / GB:.1f} GB to give; {self._cure(at)}"
        )
        return batch, needed, [why]

    def _cure(self, at: Dial) -> str:
        """What would fit, where one row at a time does not."""
        again = self.memory(at, 1, recompute=True).peak
        if not self.recompute and again <= self.usable:
            return f"with --set recompute=on it needs {again / GB:.1f} GB"
        if depth := deepest(at.depth, self.recipe, lambda d: self.holds(dial(d, self.recipe))):
            return f"choose a smaller depth (--depth {depth} fits), or devices with more memory"
        return "choose a smaller model (--recipe laptop), or devices with more memory"


def deepest(below: int, recipe: Recipe, good: Callable[[int], bool]) -> int | None:
    """The greatest depth ``below`` another that is ``good``, as all lesser ones are; None: none."""
    depths = range(1 + recipe.model.backout, below)
    number = bisect_left(depths, True, key=lambda depth: not good(depth))
    return depths[number - 1] if number else None
