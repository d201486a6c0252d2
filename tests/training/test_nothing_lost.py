"""What was learned is on disk before anything can fail, and a run goes on with its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from nanogpt2.data.shards import write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals import during
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.loading import find_tokenizer
from nanogpt2.training.saver import Saver
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import RECIPE, TinyData, curve
from tests.test_folders import tree


@pytest.fixture
def other_tokenizer(tiny_data: TinyData, tmp_path: Path) -> Path:
    """As many tokens, but others."""
    texts = ["quick brown foxes jump over lazy dogs and quicker ones"] * 9
    Tokenizer.train(texts, RECIPE.model.vocab_size).save(tmp_path / "other")
    return tmp_path / "other"


def begun(tiny_data: TinyData, run: Path) -> None:
    train(tiny_data.settings(run, max_seconds=1e-9))
    assert list_checkpoints(run)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        (["hello world"], "does not fill one row of 33 tokens"),
        ([None] * 200, "holds no text"),
        ([], "does not fill one row of 33 tokens"),
    ],
)
def test_held_out_text_that_cannot_be_measured_is_told_before_the_first_step(
    tiny_data: TinyData, tmp_path: Path, documents: list[Any], words: str
) -> None:
    data = Path(shutil.copytree(tiny_data.data_dir, tmp_path / "data"))
    write_shard(data / "shard_00009.parquet", documents)
    with pytest.raises(UserError, match=words):
        train(
            tiny_data.settings(tmp_path / "run", data=data),
            lambda report: pytest.fail("a step was taken"),
        )
    assert not (tmp_path / "run").exists()
    blind = tiny_data.settings(tmp_path / "run", data=data, steps=2, eval_every=-1)
    assert train(blind).step == 2, "who does not measure needs no held-out text"


def test_the_bundle_of_core_is_read_before_the_first_step(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    settings = tiny_data.settings(tmp_path / "run", core_every=24, core_bundle=tmp_path)
    with pytest.raises(UserError, match="core.yaml"):
        train(settings, lambda report: pytest.fail("a step was taken"))


@pytest.mark.parametrize("step", [6, 24])
def test_a_failing_measurement_leaves_a_checkpoint_and_the_way_on(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    original, told, calls = during.bits_per_byte, [], []

    def fails(*arguments: Any, **named: Any) -> float:
        calls.append(1)
        if len(calls) == step // 6:
            raise UserError("the held-out text went away")
        return original(*arguments, **named)

    settings = tiny_data.settings(tmp_path, checkpoint_every=0)
    with monkeypatch.context() as patched:
        patched.setattr(during, "bits_per_byte", fails)
        with pytest.raises(UserError, match="went away"):
            train(settings, on_message=told.append)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [f"step_{step:06d}"]
    assert f"is saved in {list_checkpoints(tmp_path)[0]}, and the same command measures" in told[-1]
    assert train(settings).step == 24
    assert curve(tmp_path) == curve(unbroken)


def test_the_best_checkpoint_is_kept_though_it_is_saved_before_it_is_measured(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3.0, 1.0, 2.0, 4.0])  # at steps 6, 12, 18, 24
    monkeypatch.setattr(during, "bits_per_byte", lambda *_, **__: next(scores))
    # a slow disk would have steps leave out a save: here each waits for the one before it
    monkeypatch.setattr(Saver, "busy", property(lambda _: False))
    result = train(tiny_data.settings(tmp_path, checkpoint_every=6, keep_last=1))
    kept = {folder.name for folder in list_checkpoints(tmp_path)}
    assert kept == {"step_000012", "step_000024"} and result.best_val_bpb == 1.0


def test_another_tokenizer_of_the_same_size_is_refused(
    tiny_data: TinyData, tmp_path: Path, other_tokenizer: Path
) -> None:
    run = tmp_path / "run"
    begun(tiny_data, run)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="of a run with another tokenizer"):
        train(tiny_data.settings(run, tokenizer=other_tokenizer))
    assert tree(tmp_path) == before
    # nor is it loaded with the model it did not train
    with pytest.raises(UserError, match="trained with another tokenizer"):
        find_tokenizer(run, other_tokenizer)


def test_a_tokenizer_that_is_there_is_not_replaced(
    tiny_data: TinyData, tmp_path: Path, other_tokenizer: Path
) -> None:
    shutil.copytree(other_tokenizer, tmp_path / "run" / "tokenizer")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="holds another tokenizer"):
        train(tiny_data.settings(tmp_path / "run"))
    assert tree(tmp_path) == before


def test_another_seed_or_text_is_another_run(tiny_data: TinyData, tmp_path: Path) -> None:
    run, data = tmp_path / "run", Path(shutil.copytree(tiny_data.data_dir, tmp_path / "data"))
    begun(tiny_data, run)
    write_shard(data / "shard_00003.parquet", ["some other text, held out"] * 99)
    before = tree(tmp_path)
    for changes, words in (
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"data": data}, "held-out text, is not in the data folder as it was"),
    ):
        with pytest.raises(UserError, match=words):
            train(tiny_data.settings(run, **changes))
        assert tree(tmp_path) == before


def test_moved_data_goes_on_to_the_same_end(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    begun(tiny_data, tmp_path / "run")
    data = Path(shutil.copytree(tiny_data.data_dir, tmp_path / "data"))
    (data / "shard_00000.parquet").rename(data / "shard_00000_first.parquet")
    train(tiny_data.settings(tmp_path / "run", data=data))
    assert curve(tmp_path / "run") == curve(unbroken)


def test_two_trainers_do_not_share_a_folder(tiny_data: TinyData, tmp_path: Path) -> None:
    with FileLock(tmp_path / "run.lock"), pytest.raises(UserError, match="another run is at work"):
        train(tiny_data.settings(tmp_path))
    assert train(tiny_data.settings(tmp_path, steps=1)).step == 1


@pytest.mark.parametrize("name", ["metrics.jsonl", "training.json", "checkpoints/step_000100/x"])
def test_files_that_no_run_made_are_not_overwritten(
    tiny_data: TinyData, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "proj" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="which no run of this program made"):
        train(tiny_data.settings(tmp_path / "proj"))
    assert tree(tmp_path) == before
