"""Rehearsals of the real command, for the chapter on the speedrun: as a user starts it, killed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

from nanogpt2.errors import UserError
from nanogpt2.files import mark
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
    # into a file, not onto a terminal, whatever a notebook has made its children believe
    forced = ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS")
    environment = {name: value for name, value in os.environ.items() if name not in forced}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TERM": "dumb"}
    log, started = out.parent / f"{out.name}.log", time.perf_counter()
    with (
        log.open("wb") as stdout,
        subprocess.Popen(
            command, env=environment, stdout=stdout, stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        while process.poll() is None:
            late = time.perf_counter() - started > timeout
            if late or (kill_at is not None and steps_done(out) >= kill_at):
                _kill_all(process.pid)
                process.wait()
                if late:
                    raise UserError(
                        f"the run did not end within {timeout:g} s; free the machine of other "
                        "work and run the cell again"
                    )
            time.sleep(0.1)
    seconds, text = time.perf_counter() - started, log.read_text("utf-8", "replace")
    said = text.replace(str(out), f"runs/{out.name}").splitlines()
    return Rehearsal(process.returncode, seconds, said, steps_done(out))


def _kill_all(pid: int) -> None:
    """SIGKILL to a process and all below it: the launcher's ranks have sessions of their own."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


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
