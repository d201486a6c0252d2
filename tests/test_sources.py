"""A run whose --data is made into shards, or mixed, goes on with that text and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nanogpt2.reporting.run import load_run, weights_of
from nanogpt2.speedrun import main
from tests.test_folders import tree
from tests.test_speedrun import STEPS, command, exit_code, losses, write_documents


def told(path: Path, word: str) -> Path:
    lines = [json.dumps({"text": f"{n}. {word}, told {n} times by {word}."}) for n in range(80)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run on one file of prose, stopped early, and another file."""
    home = tmp_path / "home"
    home.mkdir()
    own, _ = told(home / "own.jsonl", "harbour"), told(home / "other.jsonl", "mountain")
    assert main(command(own, home / "run", "--set", "max_seconds=1e-9")) == 0
    assert 0 < len(losses(home / "run")) < STEPS
    return home


@pytest.mark.parametrize("more", [[], ["--more-data"]])
def test_other_prose_is_refused_and_nothing_written(
    begun: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(begun)
    name = "own" if more else "other"
    assert exit_code(command(begun / f"{name}.jsonl", begun / "run", *more)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("--init-from" if more else "learned from other text") in said
    assert tree(begun) == before


def test_its_own_prose_goes_on_even_where_it_has_changed_since(begun: Path) -> None:
    with open(begun / "own.jsonl", "a") as file:
        file.write('{"text": "One more."}\n')
    assert main(command(begun / "own.jsonl", begun / "run")) == 0
    assert list(losses(begun / "run")) == list(range(1, STEPS + 1))


def mixture(home: Path, shards: str, weight: float = 0.5) -> list[str]:
    """The command of a mixture of shards as they lie and of prose that is made into some."""
    names = [f"{home / shards}:{weight}", f"{home / 'own.jsonl'}:{1 - weight}"]
    arguments = command(home, home / "run")
    at = arguments.index("--data")
    return [*arguments[:at], "--data", *names, *arguments[at + 2 :]]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    write_documents(home / "shards")
    told(home / "own.jsonl", "harbour")
    assert main([*mixture(home, "shards"), "--set", "max_seconds=1e-9"]) == 0
    return home


def test_other_weights_are_refused(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(mixed)
    assert exit_code(mixture(mixed, "shards", 0.9)) == 2
    assert "by other weights" in capsys.readouterr().err.splitlines()[-1]
    assert tree(mixed) == before


def test_a_mixture_follows_its_sources(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mixed / "shards").rename(mixed / "elsewhere")
    assert main(mixture(mixed, "elsewhere")) == 0
    assert list(losses(mixed / "run")) == list(range(1, STEPS + 1))
    shutil.copytree(mixed / "elsewhere", mixed / "changed")
    (mixed / "changed" / "shard_00000.parquet").unlink()
    assert exit_code(mixture(mixed, "changed")) == 2
    assert "learned from other text" in capsys.readouterr().err.splitlines()[-1]


def test_what_was_made_for_a_mixture_moves_with_its_run(mixed: Path) -> None:
    (mixed / "run").rename(mixed / "moved")
    again = ["--resume", "--out", str(mixed / "moved"), "--device", "cpu"]
    assert main([*again, "--set", "max_seconds=1e9"]) == 0
    assert list(losses(mixed / "moved")) == list(range(1, STEPS + 1))


def test_a_score_of_an_earlier_model_is_not_shown(begun: Path) -> None:
    run = begun / "run"
    assert main(command(begun / "own.jsonl", run)) == 0
    own = weights_of(run)
    assert own is not None
    for weights, shown in ((None, 0.25), (own, 0.25), ("of another", None)):
        score = {"core": 0.25, "tasks": {}} | ({"weights": weights} if weights else {})
        (run / "core.json").write_text(json.dumps(score))
        assert load_run(run).core.get("core") == shown
    shutil.rmtree(run / "checkpoints")
    assert load_run(run).core["core"] == 0.25, "nothing is left to tell by"
