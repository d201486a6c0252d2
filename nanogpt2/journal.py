"""How each attempt at a run went: ``attempts.jsonl`` in its folder, a line where a stage ends.

A restarting launcher (torchrun) starts lost ranks again. It would start a user's mistake or a loss
that diverged again too, at full price: so an attempt reads first how the one before it ended.
Chapter: speedrun.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nanogpt2.errors import explain
from nanogpt2.files import read_lines

NAME = "attempts.jsonl"
WELL = "well"


def restarts() -> int:
    """How often the launcher has started this rank again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


class Journal:
    """The lines of one run; nothing is written before a stage has something to do."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.path, self.rank = folder / NAME, rank
        self.begun = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around the work of a stage, by rank 0: when it began, how long it took, how it ended."""
        if not self.begun:
            self._append(attempt=restarts(), after=self.last_words())
        self.begun, began, ended = True, time.monotonic(), WELL
        self._append(stage=name)
        try:
            yield
        except BaseException as error:
            ended = why(error)
            raise
        finally:
            self._append(stage=name, seconds=round(time.monotonic() - began, 3), ended=ended)

    def failed(self, error: BaseException) -> None:
        """This rank ends by ``error``; code 2 is a mistake that another attempt would repeat."""
        if self.path.is_file():
            code = 1 if explain(error) is None else 2
            self._append(rank=self.rank, code=code, error=why(error))

    def refusal(self) -> str | None:
        """Why a restarted rank should not try again; None where it should."""
        lines = self.lines() if restarts() else []
        last = max((i for i, line in enumerate(lines) if "attempt" in line), default=0)
        return next((line["error"] for line in lines[last:] if line.get("code") == 2), None)

    def last_words(self) -> str | None:
        """How the attempt before this one ended; None where it ended well, or there was none."""
        lines = self.lines()
        last = lines[-1] if lines else {"ended": WELL}
        if "error" in last:
            return f"rank {last['rank']}: {last['error']}"
        if "ended" in last:
            return None if last["ended"] == WELL else str(last["ended"])
        return f"killed, or its machine was lost, at the stage {last.get('stage', 'before all')!r}"

    def seconds(self) -> dict[str, float]:
        """Wall clock by stage, over all attempts but those that were killed in it."""
        found: dict[str, float] = {}
        for line in self.lines():
            name, seconds = line.get("stage"), line.get("seconds")
            if isinstance(name, str) and isinstance(seconds, (int, float)):
                found[name] = found.get(name, 0.0) + seconds
        return found

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines."""
        return read_lines(self.path)

    def _append(self, **values: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = {"time": now} | {k: v for k, v in values.items() if v is not None}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def why(error: BaseException) -> str:
    """The sentence of a user's mistake, or the error's name and words."""
    return explain(error) or f"{type(error).__name__}: {error}".removesuffix(": ")
