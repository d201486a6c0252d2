"""What is fetched and checked before the training: shards while the tokenizer learns; the disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanogpt2.data import download
from nanogpt2.data.shards import write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.machines import machine_of
from nanogpt2.memory import shards_needed
from nanogpt2.planning import plan
from nanogpt2.recipes import get_recipe
from nanogpt2.reported import CHARACTERS_PER_TOKEN, CROPPED, SHARD_CHARACTERS
from nanogpt2.reporting.console import Screen
from nanogpt2.run import Run
from nanogpt2.stages import TOKENIZER_SHARDS, Work


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A hub whose shards come at once, a tokenizer learned at once, and what was asked in order."""
    told: list[Any] = []

    def fetch(name: str, folder: Path, shards: int, on_bytes: Any) -> None:
        told.append(("fetch", shards))
        for file in download.DATASETS[name].names(shards):
            write_shard(folder / file, [f"text of {file}"])

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            told.append(("meanwhile", command[2:]))

        def terminate(self) -> None:
            told.append("ended")

        def wait(self) -> None:
            pass

    def learn(texts: Any, vocab_size: int) -> Any:
        told.append(("learn", list(texts)))

        class Learned:
            def save(self, folder: Path) -> None:
                folder.mkdir()

        return Learned()

    monkeypatch.setattr(download, "download_dataset", fetch)
    monkeypatch.setattr(download.subprocess, "Popen", Process)
    monkeypatch.setattr(Tokenizer, "train", learn)
    return told


def work(out: Path, **changes: Any) -> Work:
    run = Run(replace(get_recipe("run1"), record=None, **changes), out)
    return Work(run, plan(run.recipe, None, machine_of("H100", 8)), Screen(quiet=True))


def test_the_tokenizer_learns_while_the_other_shards_come(events, tmp_path):
    asked = work(tmp_path / "run", iterations=800)
    needed = asked.shards_needed()
    assert needed > TOKENIZER_SHARDS == 8
    asked.get_data()
    asked.train_tokenizer()
    first, child, (learn, texts), ended, rest = events
    assert (
        first == ("fetch", 8) and rest == ("fetch", needed) and (learn, ended) == ("learn", "ended")
    )
    assert texts == [f"text of shard_{i:05d}.parquet" for i in range(8)]
    options = ["fineweb-edu", "--shards", str(needed), "--out", str(tmp_path / "run" / "data")]
    assert child == ("meanwhile", ["nanogpt2.data.download", *options])


def test_it_learns_from_the_same_shards_however_many_are_here(events, tmp_path):
    for iterations in (800, 100):
        asked = work(tmp_path / str(iterations), iterations=iterations)
        asked.get_data()
        asked.train_tokenizer()
    texts = [event[1] for event in events if event[0] == "learn"]
    assert len(texts) == 2 and texts[1] == texts[0][: len(texts[1])]
    shutil.rmtree(tmp_path / "800" / "tokenizer")
    asked = work(tmp_path / "800", iterations=800)  # another process, all shards here
    asked.train_tokenizer()
    assert events[-1] == ("learn", texts[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_other_process_ends_with_the_block(events, tmp_path, error):
    with pytest.raises(error), download.coming("climbmix", 20, tmp_path):
        raise error
    assert events[-1] == "ended"


def test_shards_are_counted_by_what_they_hold():
    tokens = 16_704 * 524_288
    characters = tokens * CHARACTERS_PER_TOKEN / (1 - CROPPED)
    assert 0 <= shards_needed("fineweb-edu", tokens) - characters / SHARD_CHARACTERS < 1.01
    assert shards_needed("embedded", tokens) == 0


def test_what_is_on_the_disk_need_not_be_free_again(tmp_path):
    asked = work(tmp_path)
    assert asked.bytes_to_come() == asked.plan.disk_bytes > 4 * 12e9
    for name, size in (("data/shard_00000.parquet", 3 * 10**6), ("checkpoints/step_1/m", 10**6)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert asked.bytes_to_come() == asked.plan.disk_bytes - 4 * 10**6
