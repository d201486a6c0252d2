"""The three collectives that the optimizer uses, counted and, on request, timed.

With one process each hands its input straight back, so that the optimizer has one code path for
every world size. Chapter: zero2.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TORCH_NAMES = {
    "reduce_scatter": ("reduce_scatter_single", "reduce_scatter_tensor"),
    "all_gather": ("all_gather_single", "all_gather_into_tensor"),
    "all_reduce": ("all_reduce",),
}
"""torch 2.13 renamed two of them, and warns on the old names"""


@dataclass
class Event:
    """One moment of a step, for the timeline: what happened to which parameters, in seconds."""

    phase: str
    name: str
    start: float
    stop: float


@dataclass
class Pending:
    """A collective under way. It holds its buffers, the result first, until ``wait`` is done."""

    buffers: tuple[Tensor, ...]
    work: Any = None

    def wait(self) -> Tensor:
        """Block until the collective is done; its result."""
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.buffers[0]


@dataclass
class Collectives:
    """Asynchronous reduce-scatter, all-gather and all-reduce over ``group`` (None: all ranks)."""

    group: Any = None
    calls: Counter[str] = field(default_factory=Counter)
    """number of calls by name"""
    bytes: Counter[str] = field(default_factory=Counter)
    """size of the whole buffer of each call, summed by name; a ring moves (W-1)/W of it per rank"""
    events: list[Event] | None = None
    """set to a list to record a timeline"""

    @property
    def world_size(self) -> int:
        """Number of ranks, 1 outside torch.distributed."""
        return dist.get_world_size(self.group) if dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """This rank's number."""
        return dist.get_rank(self.group) if dist.is_initialized() else 0

    def reduce_scatter(self, whole: Tensor) -> Pending:
        """Sum (W n, ...) over the ranks; each rank gets its n rows."""
        part = whole.new_empty(whole.size(0) // self.world_size, *whole.shape[1:])
        return self._start("reduce_scatter", whole, part, whole)

    def all_gather(self, whole: Tensor, part: Tensor) -> Pending:
        """Put every rank's ``part`` (n, ...) side by side into ``whole`` (W n, ...)."""
        return self._start("all_gather", whole, whole, part)

    def all_reduce(self, whole: Tensor) -> Pending:
        """Sum over the ranks, in place."""
        return self._start("all_reduce", whole, whole)

    def _start(self, name: str, whole: Tensor, *buffers: Tensor) -> Pending:
        """Start a collective on ``buffers``, output first; the size of ``whole`` is noted."""
        if self.world_size == 1:
            return Pending(buffers[-1:])
        self.calls[name] += 1
        self.bytes[name] += whole.nbytes
        operation = next(getattr(dist, n) for n in TORCH_NAMES[name] if hasattr(dist, n))
        return Pending(buffers, operation(*buffers, group=self.group, async_op=True))

    @contextmanager
    def timed(self, phase: str, name: str) -> Iterator[None]:
        """Note in ``events``, where that is a list, when ``phase`` of ``name`` began and ended."""
        start = time.perf_counter()
        yield
        if self.events is not None:
            self.events.append(Event(phase, name, start, time.perf_counter()))


def bounds(count: int, world_size: int, rank: int) -> tuple[int, int]:
    """The slice [start, stop) of ``count`` rows that ``rank`` owns: ceil(count / W) each."""
    each = -(-count // world_size)
    return min(rank * each, count), min((rank + 1) * each, count)


def padded(part: Tensor, rows: int) -> Tensor:
    """``part`` with zero rows appended until it has ``rows``; itself where it has them."""
    missing = rows - part.size(0)
    return torch.cat((part, part.new_zeros(missing, *part.shape[1:]))) if missing else part


def expected_traffic(optimizer: Any) -> tuple[dict[str, int], dict[str, int]]:
    """(calls, bytes) of one step by collective: the formula of the ZeRO-2 chapter.

    A stack of K slices over W ranks travels twice as ceil(K / W) W of them: once as gradients
    (reduce-scatter), once as parameters (all-gather). A small one is all-reduced once.
    """
    W = optimizer.comm.world_size
    calls = dict.fromkeys(("reduce_scatter", "all_gather", "all_reduce"), 0)
    size = dict(calls)
    for stack in optimizer.stacks if W > 1 else []:
        sent = stack.each * (W if stack.dealt else 1)
        for name in ("reduce_scatter", "all_gather") if stack.dealt else ("all_reduce",):
            calls[name] += 1
            size[name] += sent * sum(p.nbytes for p in stack.params) // stack.count
    return calls, size
