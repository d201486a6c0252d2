"""How long something takes, told so that a busy machine spoils it as little as possible."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median over ``repeats``, after one call that does not count."""
    run()
    return statistics.median(_seconds(run) for _ in range(repeats))


def best_seconds(
    runs: Sequence[Callable[[], Any]], rounds: int, device: torch.device | str = "cpu"
) -> list[float]:
    """Best of each over ``rounds``, after one that does not count.

    All take their turns round after round, so that a busy moment hits all alike.
    """
    taken = [[_seconds(run, device) for run in runs] for _ in range(rounds + 1)]
    return [min(column) for column in zip(*taken[1:], strict=True)]


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """torch computes with ``number`` threads within the block, and as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(run: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    started = time.perf_counter()
    run()
    kind = torch.device(device).type
    if kind in ("cuda", "mps"):
        getattr(torch, kind).synchronize()
    return time.perf_counter() - started
