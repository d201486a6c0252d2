"""What a step is measured by: speed, use of the machine, memory; and the file that keeps it.

MFU is PaLM's model FLOPs utilization (arXiv 2204.02311, appendix B): the FLOPs that the model needs
for the tokens per second it sees, as a part of the machine's peak. Chapter: loop.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from nanogpt2.errors import UserError, explain
from nanogpt2.files import atomic_write, read_lines
from nanogpt2.machines import find_accelerator
from nanogpt2.run import WARMUP_STEPS


def peak_flops(device: torch.device, precision: str = "bf16") -> float | None:
    """Its dense peak in FLOP/s for bf16, fp16 or fp8 products; None where it is not known."""
    if device.type != "cuda" or precision == "fp32":
        return None
    card = find_accelerator(torch.cuda.get_device_name(device))
    if card is None or (precision != "fp16" and card.peak_bf16 is None):
        return None
    peak = card.peak_bf16 or card.peak_fp16  # cards with both have one rate for them
    return peak and peak * (2 if precision == "fp8" else 1)


def peak_memory(device: torch.device) -> int:
    """Bytes, at the highest so far: allocated on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return peak_resident()


def peak_resident(status: Path = Path("/proc/self/status")) -> int:
    """Bytes of this process in memory, at the highest so far.

    On Linux its own (VmHWM): what ``getrusage`` says there begins with the process that started it.
    """
    if status.is_file() and (own := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(own[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows, which psutil asks for the same
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def require_sound(
    step: int, loss: float, norm: float, vocab_size: int, newest: Callable[[], str]
) -> None:
    """Raise UserError where a step's loss or its gradient's norm has gone wrong.

    Before the step is saved: what is on disk stays good, and ``newest`` says what that is.
    """
    if not loss < 2 * math.log(vocab_size):  # twice the loss of knowing nothing
        finite = math.isfinite(loss)
        what = f"the loss exploded to {loss:.3g}" if finite else f"the loss is {loss}"
    elif not math.isfinite(norm):
        what = f"the gradient's norm is {norm}"
    else:
        return
    raise UserError(
        f"step {step}: {what}; {newest()}; try smaller rates (muon.lr, wte.lr), a warm-up "
        "(warmup_steps=100), or precision fp32"
    )


class MetricsFile:
    """``metrics.jsonl``: a line a step, in order, each step once."""

    def __init__(self, path: Path, step: int, tell: Callable[[str], None] = print) -> None:
        """Keep the lines up to ``step`` of an earlier part of the run; the rest is made again."""
        self.path, self.tell = path, tell
        kept = [record for record in read_steps(path) if record["step"] <= step]
        self.last = kept[-1]["step"] if kept else 0
        """the step of the last line that was kept"""
        with atomic_write(path) as temporary:
            lines = "".join(json.dumps(record) + "\n" for record in kept)
            temporary.write_text(lines, encoding="utf-8")
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (kept open)
        self.waiting = b""
        """what the disk has not taken yet"""

    def append(self, record: dict[str, Any]) -> None:
        """Write ``record`` without its absent (None) values; a full disk only delays it."""
        present = {name: value for name, value in record.items() if value is not None}
        told = bool(self.waiting)
        self.waiting += json.dumps(present).encode() + b"\n"
        try:
            self._write()
        except OSError as error:
            if not told:
                self.tell(f"{self.path.name} must wait ({explain(error) or error})")

    def close(self) -> None:
        """Write what is waiting; OSError where the disk still refuses."""
        with self.file:
            while self.waiting:
                self._write()

    def _write(self) -> None:
        written = self.file.write(self.waiting)
        self.waiting = self.waiting[written:]


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``."""
    return [record for record in read_lines(path) if isinstance(record.get("step"), int)]


def scores(path: Path, step: int, name: str = "val_bpb") -> list[tuple[int, float]]:
    """Step and validation bits per byte (or CORE, by ``name``) of every measurement up to it."""
    measured = [(line["step"], line.get(name)) for line in read_steps(path)]
    return [(at, score) for at, score in measured if at <= step and isinstance(score, (int, float))]


class Speed:
    """Seconds and tokens of training, evaluations and saving left out."""

    def __init__(self, tokens_per_step: int, seconds: float = 0.0) -> None:
        self.tokens_per_step, self.seconds = tokens_per_step, seconds
        self.steps = 0
        self.counted_seconds = 0.0
        self.last = 0.0

    def add(self, seconds: float) -> None:
        """A step took so long."""
        self.steps += 1
        self.seconds += seconds
        self.last = seconds
        if self.steps > WARMUP_STEPS:
            self.counted_seconds += seconds

    @property
    def mean(self) -> float | None:
        """Tokens per second after the warm-up; of all steps where there was no more than that."""
        counted = self.steps - WARMUP_STEPS
        if counted > 0:
            return counted * self.tokens_per_step / self.counted_seconds
        return self.tokens_per_step / self.last if self.steps else None
