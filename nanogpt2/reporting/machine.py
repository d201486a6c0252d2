"""The machine of a run, for its report: what a reader needs to judge its times."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from nanogpt2.machines import cores


def processor_name() -> str:
    """The processor as its maker calls it, or the architecture where that is not told."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit(*form: str, changed: str = "+") -> str | None:
    """The commit of the source that is running, with ``changed`` where the package differs from it.

    ``form`` are options of ``git rev-parse``, such as ``--short``; None where git knows nothing.
    """

    def git(*words: str) -> str:
        package = Path(__file__).parent.parent
        answer = subprocess.run(
            ["git", *words], cwd=package, capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a copy may lie in another's tree
        name = git("rev-parse", *form, "HEAD")
        return name + (changed if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, GPUs and versions as plain values."""
    import torch

    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit("--short"),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts["gpus"] = f"{torch.cuda.device_count()} x {gpu.name}"
        facts["gpu memory"] = f"{gpu.total_memory / 2**30:.0f} GiB each"
        facts["cuda"] = torch.version.cuda
    return facts
