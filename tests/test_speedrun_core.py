"""CORE's tasks in a speedrun: had before the training begins, and no reason to train again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nanogpt2.errors import UserError
from nanogpt2.files import MADE
from nanogpt2.speedrun import main
from tests.evals.conftest import small_bundle  # noqa: F401 (a fixture)
from tests.test_speedrun import command, exit_code, results, write_documents

ASKED = ("--set", "core_every=8", "--core-max-per-task", "2")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents"))


@pytest.fixture
def fetched(small_bundle, tmp_path, monkeypatch) -> list[bool]:  # noqa: F811
    """An empty cache, and a server: for each time it was asked, whether the run was trained."""
    asked: list[bool] = []

    def download(folder: Path) -> Path:
        asked.append((tmp_path / "run" / "training.json").exists())
        return Path(shutil.copytree(small_bundle, folder))

    monkeypatch.setattr("nanogpt2.data.bundle.cache_place", lambda: tmp_path / "cache")
    monkeypatch.setattr("nanogpt2.data.bundle.user_cache", lambda cure: tmp_path / "cache")
    monkeypatch.setattr("nanogpt2.data.download.download_bundle", download)
    return asked


def test_tasks_that_cannot_be_had_end_the_run_before_it_trains(
    fetched, documents, tmp_path, monkeypatch, capsys
):
    def refuse(folder: Path) -> Path:
        raise UserError("could not download it")

    monkeypatch.setattr("nanogpt2.data.download.download_bundle", refuse)
    assert exit_code(command(documents, tmp_path / "run", *ASKED)) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == (
        "error: could not download it; or give --core-bundle DIR, a folder that holds CORE's tasks"
    )
    assert told[-3].startswith("2/") and "get the data" in told[-3]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "attempts.jsonl", "config.json", MADE, "run.lock"
    }  # fmt: skip


def test_tasks_are_fetched_once_and_before_the_training(fetched, documents, tmp_path, capsys):
    assert main(command(documents, tmp_path / "run", *ASKED)) == 0
    assert fetched == [False] and (tmp_path / "run" / "core.json").is_file()
    capsys.readouterr()
    assert main(command(documents, tmp_path / "run", *ASKED)) == 0
    assert fetched == [False]
    assert "get the data is done" in capsys.readouterr().err


def test_a_trained_run_that_is_asked_for_core_later_fetches_and_trains_nothing_anew(
    fetched, documents, tmp_path, capsys
):
    out = tmp_path / "run"
    assert main(command(documents, out)) == 0
    trained, found = (out / "training.json").stat(), results(out)
    capsys.readouterr()
    assert main(command(documents, out, *ASKED)) == 0
    assert fetched == [True] and (out / "core.json").is_file()
    told = capsys.readouterr().err
    assert "fetching CORE's tasks" in told and "train the model is done" in told
    assert (out / "training.json").stat().st_mtime_ns == trained.st_mtime_ns
    assert results(out) == found


def test_damaged_tasks_of_ones_own_end_the_run_before_it_trains(documents, tmp_path, capsys):
    out, tasks = tmp_path / "run", tmp_path / "tasks"
    tasks.mkdir()
    assert exit_code(command(documents, out, "--core-bundle", str(tasks))) == 2
    assert "core.yaml is missing from the evaluation bundle" in capsys.readouterr().err
    assert not (out / "tokenizer").exists()
