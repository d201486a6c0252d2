"""SIGINT and SIGTERM as requests: finish the step, save, end cleanly; and what ranks agree on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, get_args

from nanogpt2.errors import StopRequested
from nanogpt2.training.settings import StopReason

STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)


class Stopper:
    """Hears SIGINT (Ctrl-C) and SIGTERM (a spot machine taken back) while it is entered.

    The first one is noted in ``requested`` for the loop to honour at the end of its step; a second
    Ctrl-C interrupts at once. Python delivers signals to the main thread only: entered elsewhere,
    it hears nothing.
    """

    def __init__(self) -> None:
        self.requested: Literal["SIGINT", "SIGTERM"] | None = None
        self._interrupts = False

    def __enter__(self) -> Stopper:
        self._old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name: Literal["SIGINT", "SIGTERM"] = "SIGINT" if number == signal.SIGINT else "SIGTERM"
        if self.requested == name == "SIGINT":
            raise KeyboardInterrupt
        self.requested = self.requested or name
        if self._interrupts:
            raise StopRequested

    def requests(self, late: bool) -> list[float]:
        """1 for the reason, of ``STOP_REASONS``, that this rank has; ``late``: its time is up."""
        asked = self.requested or ("max_seconds" if late else None)
        return [float(asked == reason) for reason in STOP_REASONS]

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part of the run that may be dropped half-way (an evaluation): StopRequested ends it."""
        self._interrupts = True
        try:
            if self.requested:
                raise StopRequested
            yield
        finally:
            self._interrupts = False


def agreed(requests: Sequence[float]) -> StopReason | None:
    """The first reason that a rank has, by the sum of all ranks' ``requests``."""
    return next((r for r, n in zip(STOP_REASONS, requests, strict=True) if n), None)
