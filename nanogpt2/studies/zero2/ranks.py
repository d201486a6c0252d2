"""Real processes that talk over gloo, started by torch.distributed's launcher as a run would be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError
from nanogpt2.files import read_json

MODULE = "nanogpt2.studies.zero2.tasks"
"""what each rank runs"""


@dataclass(frozen=True)
class Found:
    """What ``run_ranks`` brings back."""

    ranks: list[dict[str, Any]]
    """what each rank left, in order; shorter where some did not get so far"""
    seconds: float
    code: int
    """exit code of the launcher"""
    said: str
    """stderr"""


def run_ranks(task: str, ranks: int, *options: str, timeout: float = 240) -> Found:
    """Start ``ranks`` processes that do ``task`` of ``MODULE``, and wait for them.

    Raises UserError where they do not end within ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "-m", MODULE, task, "--out", folder, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        started = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said = process.communicate(timeout=timeout)[1]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise UserError(
                    f"{ranks} ranks did not finish {task!r} in {timeout:g} s; free the machine of "
                    "other work and run the cell again"
                ) from None
        seconds = time.perf_counter() - started
        files = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        found = [read_json(file) for file in files if file.is_file()]
    return Found(found, seconds, process.returncode, said)


def root_cause(found: Found) -> str:
    """The launcher's own words on which rank failed first, without its clock."""
    block = found.said.rpartition("Root Cause")[2]
    rank = re.search(r"rank\s*: (\d+)", block)
    code = re.search(r"exitcode\s*: (-?\d+)", block)
    name = re.search(r"\((SIG\w+)\)", block)
    if rank is None or code is None:
        return "the launcher names no rank"
    killed = f" ({name.group(1)})" if name else ""
    return f"rank {rank.group(1)}, exit code {code.group(1)}{killed}"
