"""Where the time of a few steps goes, and on CUDA the memory: torch.profiler around them.

Chapter: where_the_time_goes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nanogpt2.errors import explain
from nanogpt2.files import atomic_directory, require_replaceable
from nanogpt2.training.fit import Point

FOLDER, TRACE, TABLE, MEMORY = "profile", "trace.json.gz", "table.txt", "memory.pickle"
LARGEST = 10
"""operations in the table"""


class Profiler:
    """Watches the ``steps`` of a run (1 is the first) as far as this part of it takes them.

    It leaves ``profile/`` in the run's folder: a trace (for ui.perfetto.dev), a table, and on CUDA
    a snapshot of the memory (for pytorch.org/memory_viz). Raises UserError where that folder holds
    something of the user's.
    """

    def __init__(
        self, out: Path, steps: range, device: torch.device, tell: Callable[[str], None]
    ) -> None:
        self.folder, self.steps, self.tell = out / FOLDER, steps, tell
        self.on_cuda = device.type == "cuda"
        self.running: torch.profiler.profile | None = None
        self.told = ""
        """where the files are, or why there are none"""
        if steps:
            require_replaceable(self.folder)
            if not self.folder.exists():
                asked = f"steps {steps[0]:,} to {steps[-1]:,}"
                self.told = f"there is no profile: {asked} were not in this part of the run"

    def begin(self, done: int) -> None:
        """Before a step, after ``done`` others: start, if it is the first one that is meant."""
        if self.running is None and done + 1 in self.steps:
            self.first, self.last = done + 1, done
            if self.on_cuda:
                torch.cuda.memory._record_memory_history()
            self.running = torch.profiler.profile(acc_events=True)
            self.running.start()

    def step_next(self, point: Point) -> None:
        """Before the step after this one."""
        self.begin(point["step"])

    def step_done(self, point: Point) -> None:
        """After a step: stop, if it is the last one that is meant."""
        if self.running is not None:
            self.last = point["step"]
            if self.last >= self.steps[-1]:
                self.end()

    def end(self) -> None:
        """Write down what was seen; a disk that is full costs the profile and not the run."""
        if (seen := self.running) is None:
            return
        self.running = None
        seen.stop()
        by = "self_device_time_total" if self.on_cuda else "self_cpu_time_total"
        try:
            if self.last < self.first:  # the run ended before
                return
            with atomic_directory(self.folder) as folder:
                seen.export_chrome_trace(str(folder / TRACE))
                table = seen.key_averages().table(sort_by=by, row_limit=LARGEST)
                (folder / TABLE).write_text(table + "\n", encoding="utf-8")
                if self.on_cuda:
                    torch.cuda.memory._dump_snapshot(str(folder / MEMORY))
            self.told = f"a profile of steps {self.first:,} to {self.last:,} is in {self.folder}"
        except OSError as error:
            self.told = f"the profile could not be written ({explain(error) or error})"
        finally:
            if self.on_cuda:
                torch.cuda.memory._record_memory_history(enabled=None)
        self.tell(self.told)
