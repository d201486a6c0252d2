"""A profile of a few steps: what it leaves, and that it changes nothing of what is learned."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.training.length import require_steady_start
from nanogpt2.training.profiler import Profiler
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, curve, differences
from tests.training.ranks import run_ranks
from tests.training.test_trainer import interrupt


def test_a_profiled_run_is_the_same_run(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    train(tiny_data.settings(tmp_path, profile="10:13"), on_message=told.append)
    assert differences(tmp_path, unbroken) == []
    assert told[-1] == f"a profile of steps 10 to 13 is in {tmp_path / 'profile'}"
    with gzip.open(tmp_path / "profile" / "trace.json.gz", "rt") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert names.count("Optimizer.step#MuonAdamW.step") == 4
    _, header, _, *rows = (tmp_path / "profile" / "table.txt").read_text().splitlines()
    rows = rows[: next(i for i, row in enumerate(rows) if row.startswith("---"))]
    column = header.index("Self CPU %")
    shares = [float(row[column:].split("%")[0]) for row in rows]
    assert len(rows) == 10 and shares == sorted(shares, reverse=True) and shares[0] > 0


@pytest.mark.parametrize("asked", ["13", "13:10", "0:3", "1:101", "a:b", "1:"])
def test_what_is_no_stretch_of_steps(tiny_data: TinyData, tmp_path: Path, asked: str) -> None:
    with pytest.raises(UserError, match="the first and the last of at most 100 steps"):
        tiny_data.settings(tmp_path, profile=asked)


def test_steps_that_cannot_be_profiled(tiny_data: TinyData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="30:33 goes beyond the run, which has 24 steps"):
        train(tiny_data.settings(tmp_path / "run", profile="30:33"))
    timed = tiny_data.settings(tmp_path / "run", steps=100, minutes=1.0, profile="20:22")
    with pytest.raises(UserError, match="measure the speed .*--profile 21:23"):
        require_steady_start(timed)
    (tmp_path / "run" / "profile").mkdir(parents=True)
    (tmp_path / "run" / "profile" / "of_mine").touch()
    with pytest.raises(UserError, match="which no run of this program made"):
        train(tiny_data.settings(tmp_path / "run", profile="3:4"))
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "profile", "of_mine"]


def test_a_run_that_is_stopped_leaves_what_was_seen(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    settings, told = tiny_data.settings(tmp_path, profile="5:20"), []
    train(settings, interrupt(7, signal.SIGTERM), told.append)  # heard in the eighth
    assert told[-1] == f"a profile of steps 5 to 8 is in {tmp_path / 'profile'}"
    train(settings, on_message=told.append)
    assert told[-1] == f"a profile of steps 9 to 20 is in {tmp_path / 'profile'}"
    assert differences(tmp_path, unbroken) == []


def test_steps_that_are_past_are_told(tiny_data: TinyData, tmp_path: Path) -> None:
    train(tiny_data.settings(tmp_path), interrupt(7, signal.SIGTERM))
    told: list[str] = []
    train(tiny_data.settings(tmp_path, profile="3:4"), on_message=told.append)
    assert told[-1] == "there is no profile: steps 3 to 4 were not in this part of the run"
    told.clear()
    train(tiny_data.settings(tmp_path), on_message=told.append)
    assert "profile" not in " ".join(told)


def profiled(tiny_data: TinyData, out: Path, profile: str | None) -> list[Any]:
    told: list[str] = []
    train(tiny_data.settings(out, steps=4, profile=profile), on_message=told.append)
    return [curve(out), [line for line in told if "profile" in line]]


def test_the_first_rank_alone_is_profiled(tiny_data: TinyData, tmp_path: Path) -> None:
    plain = run_ranks(2, profiled, tiny_data, tmp_path / "plain", None)
    (seen, told), (_, silent) = run_ranks(2, profiled, tiny_data, tmp_path / "run", "1:2")
    assert seen == plain[0][0] and len(told) == 2 and silent == []
    assert differences(tmp_path / "run", tmp_path / "plain") == []


def test_the_memory_of_a_gpu_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in: recorded from the first step on, kept, and switched off again."""
    called: list[Any] = []
    memory = torch.cuda.memory
    monkeypatch.setattr(
        memory, "_record_memory_history", lambda enabled="all": called.append(enabled)
    )
    monkeypatch.setattr(memory, "_dump_snapshot", lambda path: Path(path).write_bytes(b"seen"))
    profiler = Profiler(tmp_path, range(2, 4), torch.device("cuda"), lambda line: None)
    for done in range(4):
        profiler.begin(done)
        assert called == (["all"] if done in (1, 2) else [] if not done else ["all", None])
        torch.ones(3).sum()
        profiler.step_done({"step": done + 1})
    assert (tmp_path / "profile" / "memory.pickle").read_bytes() == b"seen"


def test_a_full_disk_costs_the_profile_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    profiler = Profiler(tmp_path, range(1, 2), torch.device("cpu"), told.append)
    profiler.begin(0)
    monkeypatch.setattr("nanogpt2.files.os.replace", full)
    profiler.step_done({"step": 1})
    (sentence,) = told
    assert sentence.startswith("the profile could not be written (the disk is full;")
    assert list(tmp_path.iterdir()) == []
