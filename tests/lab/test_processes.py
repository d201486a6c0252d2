"""Commands of their own: what they say is kept, and nothing of them outlives their end."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from nanogpt2.errors import UserError
from nanogpt2.lab.processes import run_process
from tests.waiting import wait_until

ENDLESS = "import threading; threading.Event().wait()"
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], start_new_session=True)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(child.pid))
os.replace(sys.argv[1] + ".part", sys.argv[1])
child.wait()
"""


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_command_is_killed_with_a_child_that_has_a_session_of_its_own(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, str(pid), ENDLESS]
    code, _ = run_process("it", command, tmp_path / "log", 900, pid.is_file)
    assert code == -signal.SIGKILL
    wait_until(lambda: not lives(int(pid.read_text())))


def test_what_a_command_says_is_in_its_log_and_a_late_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    told = "import os, sys; print(os.environ.get('FORCE_COLOR')); sys.exit('an end')"
    assert run_process("it", [sys.executable, "-c", told], tmp_path / "log", 900)[0] == 1
    assert (tmp_path / "log").read_text().split() == ["None", "an", "end"]
    with pytest.raises(UserError, match="the sum did not end within 0.1 s"):
        run_process("the sum", [sys.executable, "-c", ENDLESS], tmp_path / "log", 0.1)
