"""Commands in processes of their own, as a user starts them. Chapters: zero2, speedrun."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from nanogpt2.errors import UserError


def run_process(
    what: str,
    command: Sequence[str],
    log: Path,
    timeout: float,
    kill_when: Callable[[], bool] = lambda: False,
) -> tuple[int, float]:
    """Run ``command``, what it says into ``log``; its exit code (negative: a signal's) and seconds.

    It is killed, with all below it, once ``kill_when()`` is true, and after ``timeout`` seconds:
    then UserError says that ``what`` did not end.
    """
    # into a file, not onto a terminal, whatever a notebook has made its children believe
    forced = ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS")
    environment = {name: value for name, value in os.environ.items() if name not in forced}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TERM": "dumb"}
    started = time.perf_counter()
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        while process.poll() is None:
            late = time.perf_counter() - started > timeout
            if late or kill_when():
                _kill_all(process.pid)
                process.wait()
            if late:
                raise UserError(
                    f"{what} did not end within {timeout:g} s; free the machine of other work and "
                    "run the cell again"
                )
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    return process.returncode, time.perf_counter() - started


def _kill_all(pid: int) -> None:
    """SIGKILL to a process and all below it: the launcher's ranks have sessions of their own."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
