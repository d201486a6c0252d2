"""Rehearsals of the real command, for the chapter on the speedrun: as a user starts it, killed."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nanogpt2.files import mark
from nanogpt2.lab.processes import run_process
from nanogpt2.reporting.run import read_metrics


@dataclass(frozen=True)
class Rehearsal:
    """One start of the command."""

    code: int
    """exit code; negative: killed by that signal"""
    seconds: float
    said: list[str]
    """lines of stdout"""
    steps: int
    """lines in the run's metrics when it ended"""


def rehearse(
    out: Path, *options: str, kill_at: int | None = None, timeout: float = 300
) -> Rehearsal:
    """Run ``python -m nanogpt2.speedrun --out out`` with ``options``, as a user would.

    Args:
        out: the run's folder.
        kill_at: send SIGKILL to it and all its ranks once so many steps are on record.
        timeout: seconds after which it is killed, and UserError raised.
    """
    command = [sys.executable, "-m", "nanogpt2.speedrun", "--out", str(out), *options]
    log = out.parent / f"{out.name}.log"

    def far_enough() -> bool:
        return kill_at is not None and steps_done(out) >= kill_at

    code, seconds = run_process("the run", command, log, timeout, far_enough)
    text = log.read_text("utf-8", "replace")
    said = text.replace(str(out), f"runs/{out.name}").splitlines()
    return Rehearsal(code, seconds, said, steps_done(out))


def metrics(out: Path) -> list[dict[str, Any]]:
    """The steps on record; one that was repeated after a kill counts once."""
    return read_metrics(out / "metrics.jsonl")


def steps_done(out: Path) -> int:
    """The last step on record."""
    found = metrics(out)
    return found[-1]["step"] if found else 0


def prepared_copy(run: Path, out: Path) -> Path:
    """``run`` as it was before training, with the same data and tokenizer: to train it again."""
    shutil.copytree(run / "data", out / "data")
    shutil.copytree(run / "tokenizer", out / "tokenizer")
    mark(out)
    (out / "stages").mkdir()
    for stage in ("data", "tokenizer"):
        shutil.copy2(run / "stages" / f"{stage}.json", out / "stages")
    return out


def same_weights(first: Path, second: Path) -> bool:
    """Whether the newest checkpoints of two runs hold the same bits."""
    folders = [sorted((run / "checkpoints").glob("step_*"))[-1] for run in (first, second)]
    one, other = (load_file(folder / "model.safetensors") for folder in folders)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def stages_said(rehearsal: Rehearsal) -> list[str]:
    """What the command says from its second stage on: the first repeats the plan."""
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in rehearsal.said]
    begin = next((i for i, line in enumerate(plain) if line.startswith("2/")), 0)
    return [line for line in plain[begin:] if line]
