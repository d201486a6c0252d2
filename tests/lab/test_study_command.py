"""A study's command: what it refuses, what it keeps, and that nothing is trained twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nanogpt2.errors import UserError
from nanogpt2.lab.seams import Patch
from nanogpt2.lab.study_command import chosen, run_trials, study_arguments
from nanogpt2.lab.trials import Protocol, Results, Trial
from tests.lab.test_trials import TINY


def test_an_interrupted_list_goes_on_and_nothing_is_trained_twice(
    tmp_path: Path, data: Path
) -> None:
    other = replace(TINY, warmup_steps=2)
    asked = [Trial("base", TINY, 0), Trial("other", other, 0, "base"), Trial("base", TINY, 1)]
    results, said = Results(tmp_path), list[str]()
    protocol = Protocol(data, 5000, 8)
    run_trials(asked[:1], protocol, results, 1, tell=said.append)
    (kept,) = tmp_path.glob("*.json")
    before = kept.read_bytes()
    (tmp_path / ".other.partial").write_text("{")
    run_trials(asked, protocol, results, 2, tell=said.append)
    assert kept.read_bytes() == before and len(results.all()) == 3
    assert "1 of 3 trials are done, 2 to go" in said
    run_trials(asked, protocol, results, 2, tell=said.append)
    assert said[-1] == "3 of 3 trials are done, 0 to go"
    assert kept.stat().st_size < 5000

    with pytest.raises(UserError, match="another text than .*--out"):
        run_trials([Trial("base", TINY, 2)], Protocol(data, 4000, 8), results, tell=said.append)
    assert len(results.all()) == 3


def test_while_it_is_paused_what_runs_is_kept_and_nothing_begins(
    tmp_path: Path, data: Path
) -> None:
    pause, said = tmp_path / "pause", list[str]()

    def tell(line: str) -> None:
        said.append(line)
        if line.startswith("1/3"):
            pause.touch()

    asked = [Trial("base", TINY, seed) for seed in range(3)]
    at = (asked, Protocol(data, 5000, 8), Results(tmp_path), 2, pause, tell)
    running = threading.Thread(target=run_trials, args=at)
    running.start()
    while len(list(tmp_path.glob("base.*.json"))) < 2:
        assert running.is_alive()
        time.sleep(0.05)
    assert pause.exists() and running.is_alive()
    pause.unlink()
    running.join()
    assert len(list(tmp_path.glob("base.*.json"))) == 3 and said[-1].startswith("3/3")


def test_a_killed_list_leaves_no_process_behind_and_goes_on(tmp_path: Path, data: Path) -> None:
    code = f"""
from pathlib import Path
from nanogpt2.lab.study_command import run_trials
from nanogpt2.lab.trials import Protocol, Results, Trial
from tests.lab.test_study_command import TINY, endless
if __name__ == "__main__":
    long = [Trial("long", TINY, seed, within=endless) for seed in (0, 1)]
    asked = [Trial("base", TINY, 0), *long]
    protocol = Protocol(Path({str(data)!r}), 5000, 8)
    run_trials(asked, protocol, Results(Path({str(tmp_path)!r})), 2)
"""
    script = tmp_path / "list.py"
    script.write_text(code)
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen([sys.executable, script], env=environment) as command:
        while not list(tmp_path.glob("base.0.*.json")):
            assert command.poll() is None
            time.sleep(0.05)
        workers = psutil.Process(command.pid).children(recursive=True)
        command.kill()
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=120)[1]
    results = Results(tmp_path)
    (kept,) = results.all()
    assert kept["name"] == "base" and not results.pending([Trial("base", TINY, 0)])


def endless() -> Patch:
    """Whatever runs within it never comes to its first step."""
    threading.Event().wait()
    raise AssertionError


def test_what_is_asked_for_by_name_brings_what_it_is_compared_with_at_its_seeds_alone() -> None:
    base = [Trial("base", TINY, seed) for seed in range(4)]
    first, second = ([Trial(name, TINY, s, "base") for s in range(2)] for name in ("a", "b"))
    listed = [*base, *first, *second]
    assert chosen(listed, ["b"]) == [*base[:2], *second]
    assert chosen(listed, ["base"]) == base
    with pytest.raises(UserError, match="no run 'c'; choose of: base, a, b"):
        chosen(listed, ["a", "c"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], r"no text to train on; .*\(--data DIR\)"),
        (["--data", "nowhere"], "nowhere does not exist; .*--data"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--stage", "summary", "--only", "top"], "--stage summary makes none"),
        (["--seeds", "-1"], "whole numbers from 0 on"),
        (["--seeds", "0", "0"], "each named once"),
        (["--stage", "summary"], r"none holds no runs; .*\(--out DIR\)"),
    ],
)
def test_a_study_that_cannot_begin_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=why):
        study_arguments("norms", "", [*given, "--out", "none"], folder="ladder")
    assert not list(tmp_path.iterdir())


def refused() -> Patch:
    """A run that cannot be trained."""
    raise UserError("there is something to say")


def killed() -> Patch:
    """As by a system that has no memory left."""
    os._exit(9)


def slow() -> Patch:
    """A run that is still under way when another fails."""
    time.sleep(3)
    return nullcontext()


def test_where_a_run_fails_those_that_run_are_kept_and_no_other_begins(
    tmp_path: Path, data: Path
) -> None:
    asked = [Trial("a", TINY, 0, within=refused), Trial("b", TINY, 0, within=slow)]
    asked += [Trial("c", TINY, seed) for seed in (1, 2)]
    results = Results(tmp_path)
    with pytest.raises(UserError, match="something to say"):
        run_trials(asked, Protocol(data, 5000, 8), results, 2)
    assert [entry["name"] for entry in results.all()] == ["b"]


def test_a_run_that_is_killed_is_told_in_a_sentence(tmp_path: Path, data: Path) -> None:
    results = Results(tmp_path)
    asked = [Trial("a", TINY, 0), Trial("b", TINY, 0, within=killed)]
    with pytest.raises(UserError, match=r"was killed.*memory.*--jobs 1"):
        run_trials(asked, Protocol(data, 5000, 8), results, 1)
    assert [entry["name"] for entry in results.all()] == ["a"]


def test_what_cannot_end_well_does_not_begin(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanogpt2.lab.study_command._train_all", lambda *_: pytest.fail("began"))
    asked, out = [Trial("a", TINY, 0)], Results(tmp_path / "out")
    with pytest.raises(UserError, match="fewer than 9,999 rows"):
        run_trials(asked, Protocol(data, 5000, 9999), out)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"\(--out\).* is a file"):
        run_trials(asked, Protocol(data, 5000, 8), Results(tmp_path / "file"))
    assert not out.folder.exists()


def test_two_commands_do_not_train_in_one_folder(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_) -> None:
        monkeypatch.undo()
        run_trials([Trial("a", TINY, 0)], Protocol(data, 5000, 8), Results(tmp_path))

    monkeypatch.setattr("nanogpt2.lab.study_command._train_all", again)
    with pytest.raises(UserError, match="another command trains in"):
        run_trials([Trial("a", TINY, 0)], Protocol(data, 5000, 8), Results(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_folder_that_one_stands_in_has_its_record_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "a.0.json").write_text('{"identity": 1}')
    monkeypatch.chdir(folder)
    _, results, _ = study_arguments("norms", "", ["--stage", "summary", "--out", "."], folder="l")
    assert results.folder.parent == tmp_path.resolve()
    with pytest.raises(UserError, match="SHA-256 differs"):
        results.all()
    (folder / "notes.json").write_text('{"a": "\\ud800"}')
    (folder / "a.0.json").unlink()
    with pytest.raises(UserError, match="notes.json is no run; .*--out DIR"):
        results.all()
