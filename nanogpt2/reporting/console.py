"""What a person sees while a run goes on: bars with the time left, or plain lines in a log file.

Everything goes to stderr, so that stdout holds only results. Ranks but the first show nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from nanogpt2.outlook import duration

LINE_EVERY_SECONDS = 10.0

Advance = Callable[..., None]
"""(done, of how many, what else to say: by default what is counted)"""


def _columns(width: int) -> list[ProgressColumn]:
    """What fits into a line of the terminal, cut from the left: how long still is said in any."""
    left = [TextColumn("left"), TimeRemainingColumn()]
    if width < 60:
        return [TaskProgressColumn(), *left]
    columns = [MofNCompleteColumn(), TextColumn("{task.description}"), *left]
    return columns if width < 100 else [BarColumn(20), *columns]


class Screen:
    """Stages, messages and progress, in the form that fits where they go."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line for people, shown as it is."""
        self.console.print(escape(text))

    def stage(self, number: int, of: int, title: str, note: str = "") -> None:
        """Announce a stage; ``note`` says why it is skipped, if it is."""
        note = f" [dim]{escape(note)}[/dim]" if note else ""
        self.console.print(f"[bold]{number}/{of} {escape(title)}[/bold]{note}")

    @contextmanager
    def progress(self, counted: str = "") -> Iterator[Advance]:
        """Yield a function that is told how far the stage has come, and shows the time left."""
        if self.console.quiet:
            yield lambda done, total, text=counted: None
        elif self.console.is_terminal:
            yield from self._bar(counted)
        else:
            yield self._lines(counted)

    def _bar(self, counted: str) -> Iterator[Advance]:
        with Progress(*_columns(self.console.width), console=self.console) as progress:
            task = progress.add_task("", total=None)

            def advance(done: int, total: int, text: str = counted) -> None:
                progress.update(task, completed=done, total=total, description=escape(text))

            yield advance

    def _lines(self, counted: str) -> Advance:
        first: list[float] = []  # when, and how far, at the first call
        last = 0.0

        def advance(done: int, total: int, text: str = counted) -> None:
            nonlocal last
            now = time.monotonic()
            if not first:
                first.extend((now, done))
            if done < total and now - last < LINE_EVERY_SECONDS:
                return
            last = now
            left = ""
            if first[1] < done < total:
                rate = (now - first[0]) / (done - first[1])
                left = f", {duration(rate * (total - done))} left"
            self.console.print(f"  {done:,}/{total:,} {escape(text)}{left}")

        return advance
