"""A run goes on with what it began with, and nothing in its folder is lost on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nanogpt2.data.shards import write_shard
from nanogpt2.files import MADE
from nanogpt2.inference.engine import load_engine
from nanogpt2.speedrun import main
from tests.test_folders import tree
from tests.test_speedrun import STEPS, command, exit_code, losses, results, write_documents


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data/`` and a finished ``run/`` on it; not to be changed."""
    home = tmp_path_factory.mktemp("finished")
    assert main(command(write_documents(home / "data"), home / "run")) == 0
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it; the files are the same, the folder is another."""
    return Path(shutil.copytree(finished, tmp_path / "home"))


@pytest.fixture
def begun(home: Path) -> Path:
    """The same, the run stopped after a checkpoint in the middle."""
    shutil.rmtree(home / "run")
    arguments = command(home / "data", home / "run", "--set", "max_seconds=1e-9")
    assert main(arguments) == 0
    for name in ("training.json", "evaluation.json", "samples.json"):
        (home / "run" / name).unlink()
    assert 0 < len(losses(home / "run")) < STEPS
    return home


def add(data: Path, name: str) -> None:
    write_shard(data / name, [f"{i}. A new document of other words" for i in range(60)])


def a_shard_more(data: Path) -> None:
    add(data, "shard_00000b.parquet")


def a_shard_less(data: Path) -> None:
    (data / "shard_00001.parquet").unlink()


def another_last_shard(data: Path) -> None:
    add(data, "shard_00009.parquet")


def an_edited_shard(data: Path) -> None:
    add(data, "shard_00000.parquet")


def another_held_out_text(data: Path) -> None:
    add(data, "shard_00002.parquet")


@pytest.mark.parametrize("state", ["home", "begun"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (a_shard_more, "holds shard_00000b.parquet, new since the run began; --more-data goes on"),
        (a_shard_less, "shard_00001.parquet, which the run learns from, is not in"),
        (another_last_shard, "(shard_00002.parquet stays held out)"),
        (an_edited_shard, "shard_00000.parquet, which the run learns from, is not in"),
        (another_held_out_text, "shard_00002.parquet, the run's held-out text, is not in"),
    ],
)
def test_other_text_is_refused_before_anything_is_written(
    state: str, change, words: str, request: pytest.FixtureRequest, capsys
) -> None:
    home: Path = request.getfixturevalue(state)
    change(home / "data")
    before = tree(home)
    assert exit_code(command(home / "data", home / "run")) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert tree(home) == before


def test_more_data_joins_after_what_was_there(begun: Path) -> None:
    another_last_shard(begun / "data")
    tokenizer = tree(begun / "run" / "tokenizer")
    assert main(command(begun / "data", begun / "run", "--more-data")) == 0
    assert list(losses(begun / "run")) == list(range(1, STEPS + 1))
    assert tree(begun / "run" / "tokenizer") == tokenizer
    state = json.loads(next(begun.glob(f"run/checkpoints/*{STEPS}/state.json")).read_text())
    assert [name for name, _ in state["text"]["train"]] == [
        "shard_00000.parquet", "shard_00001.parquet", "shard_00009.parquet",
    ]  # fmt: skip
    assert [name for name, _ in state["text"]["held_out"]] == ["shard_00002.parquet"]
    assert main(command(begun / "data", begun / "run")) == 0, "now it is the run's own"


@pytest.mark.parametrize("arguments", ["same", "resume"])
def test_the_data_may_move(begun: Path, finished: Path, arguments: str) -> None:
    (begun / "data").rename(begun / "elsewhere")
    (begun / "elsewhere" / "shard_00000.parquet").rename(begun / "elsewhere" / "first.parquet")
    (begun / "elsewhere" / "shard_00001.parquet").rename(begun / "elsewhere" / "again.parquet")
    again = command(begun / "elsewhere", begun / "run")
    if arguments == "resume":
        again = ["--resume", "--out", str(begun / "run"), "--data", str(begun / "elsewhere")]
        again += ["--device", "cpu", "--set", "max_seconds=1e9"]
    assert main(again) == 0
    assert results(begun / "run") == results(finished / "run")
    config = json.loads((begun / "run" / "config.json").read_text())
    assert config["data_dir"] == str((begun / "elsewhere").resolve())


def test_data_that_is_gone_is_told_with_the_way_on(begun: Path, capsys) -> None:
    (begun / "data").rename(begun / "elsewhere")
    before = tree(begun)
    assert exit_code(["--resume", "--out", str(begun / "run"), "--device", "cpu"]) == 2
    assert "--data" in capsys.readouterr().err.splitlines()[-1]
    assert tree(begun) == before


@pytest.mark.parametrize("text", ["{}", "[1]", '{"recipe": {}, "identity": 3}'])
def test_a_damaged_record_of_the_run_is_told_with_its_cure(
    begun: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = begun / "run" / "config.json"
    config.write_text(text)
    for more in ([], ["--dry-run"]):
        assert exit_code(command(begun / "data", begun / "run", *more)) == 2
        assert "config.json is damaged; delete it" in capsys.readouterr().err.splitlines()[-1]
    config.unlink()
    assert main(command(begun / "data", begun / "run")) == 0
    assert list(losses(begun / "run")) == list(range(1, STEPS + 1))


def test_a_dry_run_refuses_what_the_run_would(begun: Path) -> None:
    assert exit_code(command(begun / "data", begun / "run", "--seed", "5", "--dry-run")) == 2


def test_the_identity_has_the_digests(finished: Path) -> None:
    config = json.loads((finished / "run" / "config.json").read_text())
    state = json.loads(next(finished.glob(f"run/checkpoints/*{STEPS}/state.json")).read_text())
    assert config["identity"]["tokenizer"] == state["tokenizer"]
    assert config["identity"]["text"] == state["text"]


def another_tokenizer(home: Path) -> None:
    other = home / "other"
    arguments = command(write_documents(other / "data"), other / "run", "--set", "steps=1")
    add(other / "data", "shard_00000.parquet")
    assert main(arguments) == 0
    shutil.rmtree(home / "run" / "tokenizer")
    shutil.copytree(other / "run" / "tokenizer", home / "run" / "tokenizer")


def no_tokenizer(home: Path) -> None:
    shutil.rmtree(home / "run" / "tokenizer")


@pytest.mark.parametrize("state", ["home", "begun"])
@pytest.mark.parametrize(
    ("change", "words"),
    [(another_tokenizer, "is not the tokenizer"), (no_tokenizer, "does not hold the tokenizer")],
)
def test_a_tokenizer_is_not_made_anew_under_its_model(
    state: str, change, words: str, request: pytest.FixtureRequest, capsys
) -> None:
    home: Path = request.getfixturevalue(state)
    change(home)
    before = tree(home)
    assert exit_code(command(home / "data", home / "run")) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert tree(home) == before


def test_a_model_is_not_loaded_with_another_runs_tokenizer(home: Path) -> None:
    another_tokenizer(home)
    with pytest.raises(ValueError, match="trained with another tokenizer"):
        load_engine(home / "run", "cpu")


def test_a_lone_checkpoint_is_told_its_tokenizer(home: Path, tmp_path: Path) -> None:
    (checkpoint,) = home.glob(f"run/checkpoints/*{STEPS}")
    lone = Path(shutil.copytree(checkpoint, tmp_path / "lone"))
    with pytest.raises(ValueError, match=r"\(--tokenizer\)"):
        load_engine(lone, "cpu")
    engine = load_engine(lone, "cpu", tokenizer=home / "run" / "tokenizer")
    text = engine.complete("The river", max_new_tokens=8, temperature=0)
    assert text == load_engine(home / "run", "cpu").complete(
        "The river", max_new_tokens=8, temperature=0
    )


def test_a_copy_of_checkpoints_and_tokenizer_goes_on(home: Path, tmp_path: Path) -> None:
    for name in ("checkpoints", "tokenizer"):
        shutil.copytree(home / "run" / name, tmp_path / "copy" / name)
    assert main(command(home / "data", tmp_path / "copy")) == 0
    assert main(command(home / "data", tmp_path / "copy")) == 0, "and is a run of its own now"
    (tmp_path / "copy" / MADE).unlink()
    assert exit_code(command(home / "data", tmp_path / "copy")) == 2, "whose is config.json?"


def test_a_run_copied_without_its_data_keeps_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The embedded text differs on a machine that lacks its packages."""
    works = [[f"{i}. The river runs by the mill and turns its wheel."] for i in range(200)]
    others = [[f"{i}. Nobody in the village could read the letter."] for i in range(200)]
    arguments = command(tmp_path, tmp_path / "run")
    where = arguments.index("--data")
    arguments = [*arguments[:where], *arguments[where + 2 :], "--set", "data=embedded"]
    monkeypatch.setattr("nanogpt2.data.corpus.works", lambda: ([*works], ["sotu"]))
    assert main(arguments) == 0
    shutil.rmtree(tmp_path / "run" / "data")
    before = tree(tmp_path)
    monkeypatch.setattr("nanogpt2.data.corpus.works", lambda: ([*others], ["docstrings"]))
    assert exit_code(arguments) == 2
    assert "is not in" in capsys.readouterr().err.splitlines()[-1]
    after, log = tree(tmp_path), "run/attempts.jsonl"
    assert after.pop(log).startswith(before.pop(log))
    assert after == before
    monkeypatch.setattr("nanogpt2.data.corpus.works", lambda: ([*works], ["sotu"]))
    assert main(arguments) == 0, "with its own text made again it goes on"


@pytest.mark.parametrize(
    "name",
    ["config.json", "report.md", "report.html", "metrics.jsonl", "checkpoints/notes.txt"]
    + ["stages/notes.txt", "tokenizer/notes.txt", "samples.json"],
)
def test_files_of_the_users_own_stop_a_run(name: str, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "proj" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    before = tree(tmp_path)
    assert exit_code(command(finished / "data", tmp_path / "proj")) == 2
    assert tree(tmp_path) == before


def test_data_of_the_users_own_stops_the_embedded_corpus(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "proj" / "data").mkdir(parents=True)
    (tmp_path / "proj" / "data" / "mine.csv").write_text("years of work")
    before = tree(tmp_path)
    assert exit_code(["--recipe", "laptop", "--out", str(tmp_path / "proj")]) == 2
    assert exit_code(["--recipe", "run1", "--depth", "2", "--out", str(tmp_path / "proj")]) == 2
    assert tree(tmp_path) == before


def test_other_files_are_company(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "thesis.txt").write_text("years of work")
    assert main(command(finished / "data", tmp_path / "proj")) == 0
    assert (tmp_path / "proj" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "proj" / MADE).is_file()


def test_notes_beside_a_runs_tokenizer_stay(home: Path) -> None:
    notes = home / "run" / "tokenizer" / "notes.txt"
    notes.write_text("added by hand")
    assert main(command(home / "data", home / "run")) == 0
    assert notes.read_text() == "added by hand"


def test_text_too_short_to_be_measured_is_told_before_the_first_step(
    finished: Path, tmp_path: Path, capsys
) -> None:
    """Also where the training itself does not measure: the stage after it does."""
    data = Path(shutil.copytree(finished / "data", tmp_path / "data"))
    write_shard(data / "shard_00009.parquet", ["hello world"])
    arguments = command(data, tmp_path / "run", "--set", "eval_every=-1")
    assert exit_code(arguments) == 2
    assert "does not fill one row of 33 tokens" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_failing_evaluation_leaves_the_model(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_, **__):
        raise RuntimeError("no memory for it")

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("nanogpt2.evals.during.bits_per_byte", broken)
        arguments = command(finished / "data", out, "--set", "eval_every=0")
        with pytest.raises(RuntimeError, match="no memory"):
            main(arguments)
    assert (out / "checkpoints" / f"step_{STEPS:06d}" / "COMPLETE").is_file()
    assert list(losses(out)) == list(range(1, STEPS)), "the last line waits for its figure"
    assert main(arguments) == 0
    assert results(out)["evaluation"] == results(finished / "run")["evaluation"]
    assert list(losses(out)) == list(range(1, STEPS + 1))
