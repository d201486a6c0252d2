"""Real processes that talk over gloo, started by torch.distributed's launcher as a run would be."""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2.files import read_json
from nanogpt2.lab.processes import run_process

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


def run_ranks(task: str, ranks: int, *options: str, timeout: float = 240) -> Found:
    """Start ``ranks`` processes that do ``task`` of ``MODULE``, and wait for them.

    Raises UserError where they do not end within ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "-m", MODULE, task, "--out", folder, *options]
        log = Path(folder) / "log"
        code, seconds = run_process(f"{task!r} on {ranks} ranks", command, log, timeout)
        files = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        found = [read_json(file) for file in files if file.is_file()]
        return Found(found, seconds, code, log.read_text("utf-8", "replace"))


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
