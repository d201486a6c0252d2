"""What the steps are fed: batches made ahead, cut into as many passes as the memory asks for.

A batch is the loader's, whatever becomes of it: how it is cut changes neither the text that is read
nor where a checkpoint says to go on. So a step whose gradients did not fit into the memory can
begin anew, with smaller passes. Chapter: loop.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from nanogpt2.data.loader import TokenLoader, ahead
from nanogpt2.depth import Batch
from nanogpt2.errors import UserError
from nanogpt2.training.ranks import Ranks

STEPS_TO_FIT = 3
"""steps after a start in which passes are cut where the memory runs out"""


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """The memory of another rank ran out."""


class Feed:
    """The passes of one step after another, and again those of a step that failed."""

    def __init__(
        self,
        loader: TokenLoader,
        batch: Batch,
        state: Any,
        ranks: Ranks,
        tell: Callable[[str], None],
    ) -> None:
        self.batch, self.stream, self.ranks, self.tell = batch, ahead(loader), ranks, tell
        self.steps = 0
        """done since the start"""
        self.updating = False
        """whether the gradients of the step under way are there, on all ranks"""
        self.cuts = 1
        """passes that a batch of the loader is cut into"""
        self.taken: list[tuple[Tensor, Tensor, Callable[[], Any]]] = []
        """of the step under way"""
        self._state: Callable[[], Any] = lambda: state

    @property
    def passes(self) -> int:
        """Forward and backward passes of a step."""
        return self.batch.passes * self.cuts

    @property
    def rows(self) -> int:
        """Rows of a pass."""
        return self.batch.rows // self.cuts

    @property
    def smaller(self) -> int | None:
        """The next smaller number of rows that a batch can be cut into; None: it is 1 already."""
        return next((n for n in range(self.rows // 2, 0, -1) if self.batch.rows % n == 0), None)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Passes from the end of the last whole step on, for ever."""
        for inputs, targets, _ in chain(tuple(self.taken), self._fresh()):
            self.updating = False
            yield from zip(inputs.chunk(self.cuts), targets.chunk(self.cuts), strict=True)

    def _fresh(self) -> Iterator[tuple[Tensor, Tensor, Any]]:
        for batch in self.stream:
            self.taken.append(batch)
            yield batch

    def step_done(self) -> None:
        """Its batches are learned: from here a checkpoint goes on."""
        self.steps += 1
        self._state = self.taken[-1][2]
        self.taken.clear()

    def state(self) -> Any:
        """The loader's, where the last whole step ended."""
        return self._state()

    # Where the memory runs out

    def gradients_are_there(self) -> None:
        """Said before a step's update; OutOfMemoryElsewhere where another rank lacks them."""
        if self._cuts_now and self.ranks.world_size > 1 and self.ranks.sum([0.0])[0]:
            raise OutOfMemoryElsewhere
        self.updating = True

    def recovers(self, error: torch.OutOfMemoryError) -> bool:
        """Whether the step can begin anew, on all ranks: then each must ``cut``."""
        if self.updating or not self._cuts_now:
            return False
        if not isinstance(error, OutOfMemoryElsewhere):
            self.ranks.sum([1.0])  # what the others ask before their update
        return True

    def out_of_memory(self, step: int, newest: str) -> UserError:
        """What to say after ``step`` where smaller passes are not taken by themselves."""
        cure = "recompute=on" + (f" or device_batch_size={self.smaller}" if self.smaller else "")
        return UserError(
            f"after step {step:,} the memory of {self.ranks.device} ran out; set {cure}, with "
            f"which the same is learned, or choose a smaller depth; {newest}"
        )

    @property
    def _cuts_now(self) -> bool:
        return self.steps < STEPS_TO_FIT and self.smaller is not None

    def cut(self) -> None:
        """Halve the passes' rows, or come as near to it as their number allows."""
        before, smaller = self.rows, self.smaller
        assert smaller is not None
        self.cuts = self.batch.rows // smaller
        gc.collect()
        torch.cuda.empty_cache()
        self.tell(
            f"the memory of {self.ranks.device} does not hold a pass of {before} rows: going on "
            f"with {self.passes} passes of {smaller} rows a step, which learn the same "
            f"(device_batch_size={smaller} begins so)"
        )
