"""The speedrun as several processes: one voice, one result, and an end within seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.test_speedrun import command, losses, write_documents
from tests.waiting import PATIENCE, wait_until

STEPS = 150


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return write_documents(tmp_path_factory.mktemp("documents"))


def start(documents: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command, as two processes on the processor."""
    longer = ["--set", f"steps={STEPS}", "--set", "checkpoint_every=5", "--set", "eval_every=0"]
    return subprocess.Popen(
        [sys.executable, "-m", "nanogpt2.speedrun"]
        + command(documents, out, "--cpu-ranks", "2", *longer, *more),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(documents, tmp_path_factory):
    """A run of two ranks that nothing disturbed: its folder and what it said."""
    out = tmp_path_factory.mktemp("whole") / "run"
    running = start(documents, out)
    told = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, told[1]
    return out, *told


def wait_for_checkpoint(out: Path, running: subprocess.Popen[str]) -> None:
    wait_until(
        lambda: list(out.glob("checkpoints/*/COMPLETE")),
        lambda: running.poll() is None,
    )


def ranks_of(running: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    children = psutil.Process(running.pid).children()
    return {int(c.environ()["RANK"]): c for c in children if "RANK" in c.environ()}


def test_two_ranks_speak_with_one_voice(whole):
    out, stdout, stderr = whole
    assert stdout.split() == [str(out / "report.html")]
    assert stderr.count("train the model") == 1
    assert "Traceback" not in stderr and "Warning" not in stderr
    assert list(losses(out)) == list(range(1, STEPS + 1))


def test_a_killed_rank_is_started_again_and_nothing_is_lost(whole, documents, tmp_path):
    out = tmp_path / "run"
    running = start(documents, out, "--max-restarts", "1")
    wait_for_checkpoint(out, running)
    ranks_of(running)[1].kill()
    _, stderr = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, stderr
    assert "continuing from step_" in stderr and "started again; the attempt before" in stderr
    assert losses(out) == losses(whole[0])


def test_a_killed_rank_ends_the_run_and_is_named(documents, tmp_path):
    running = start(documents, tmp_path / "run")
    wait_for_checkpoint(tmp_path / "run", running)
    ranks = ranks_of(running)
    ranks[1].kill()
    _, stderr = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert "rank 1 of 2" in stderr.splitlines()[-1] and "SIGKILL" in stderr.splitlines()[-1]
    assert not any(rank.is_running() for rank in ranks.values())


def test_sigterm_saves_and_the_same_command_goes_on(whole, documents, tmp_path):
    out = tmp_path / "run"
    running = start(documents, out)
    wait_for_checkpoint(out, running)
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=PATIENCE)
    assert running.returncode == 143, stderr
    assert "stopped by SIGTERM" in stderr and 0 < len(losses(out)) < STEPS
    again = start(documents, out)
    assert again.wait(timeout=PATIENCE) == 0
    assert losses(out) == losses(whole[0])


def test_a_users_mistake_is_told_once_with_its_rank(documents, tmp_path):
    """Nor does a launcher that restarts lost ranks repeat it."""
    more = ("--set", "vocab_size=30000", "--max-restarts", "2")
    running = start(documents, tmp_path / "run", *more)
    _, stderr = running.communicate(timeout=PATIENCE)
    assert running.returncode == 2
    assert stderr.count("train the tokenizer") == 1
    errors = [line for line in stderr.splitlines() if "error" in line.lower()]
    first, *others = (line for line in errors if "too short" in line)
    assert "rank 0 of 2" in first
    # of the attempts after it at most one line each: a rank may be ended before it could say so
    assert len(errors) == 1 + len(others) <= 3
    assert all("not started again" in line for line in others)
    kept = (tmp_path / "run" / "attempts.jsonl").read_text().splitlines()
    assert [line["attempt"] for line in map(json.loads, kept) if "attempt" in line] == [0]
