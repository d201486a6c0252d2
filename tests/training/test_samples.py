"""What a model writes while it learns: kept, shown, and without a trace in what is learned."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from nanogpt2 import Tokenizer, load_model
from nanogpt2.evals.during import Questions
from nanogpt2.run import PROMPTS
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, differences
from tests.test_logs import Recorder
from tests.training.ranks import run_ranks
from tests.training.test_trainer import interrupt


def samples(out: Path) -> dict[int, list[dict[str, str]]]:
    """What ``metrics.jsonl`` keeps of them, by step."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["samples"] for line in lines if "samples" in line}


@pytest.fixture(scope="module")
def sampled(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sampled") / "run"
    train(tiny_data.settings(out, sample_every=9))
    return out


def test_they_are_the_models_own_and_change_nothing(
    tiny_data: TinyData, unbroken: Path, sampled: Path
) -> None:
    assert differences(sampled, unbroken) == []
    found = samples(sampled)
    assert list(found) == [9, 18, 24] and samples(unbroken) == {}
    assert found[9] != found[24]
    tokenizer = Tokenizer.load(tiny_data.tokenizer_dir)
    asked = Questions(tiny_data.settings(sampled), tokenizer, rows=4)
    model = load_model(sampled)
    assert asked.write(model) == found[24] == asked.write(model)
    assert [sample["prompt"] for sample in found[24]] == list(PROMPTS[:2])
    assert all(sample["text"] for sample in found[24])


def test_they_are_shown_a_line_each(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Questions, "write", lambda *_: [{"prompt": "A", "text": " b\n\nc  d"}])
    train(tiny_data.settings(tmp_path, steps=3, sample_every=2), on_message=told.append)
    assert told[-2:] == ["step 2: A b c d", "step 3: A b c d"]


def test_a_stopped_run_keeps_those_of_its_last_step(
    tiny_data: TinyData, sampled: Path, tmp_path: Path
) -> None:
    """Where the measurement of that step is still to be made, and its line is written anew."""
    settings = tiny_data.settings(tmp_path, sample_every=9, eval_every=9)
    assert train(settings, interrupt(17, signal.SIGTERM)).step == 18
    train(settings)
    assert samples(tmp_path) == samples(sampled)


def on_ranks(tiny_data: TinyData, out: Path, every: int) -> list[str]:
    told: list[str] = []
    train(tiny_data.settings(out, steps=4, sample_every=every), on_message=told.append)
    return [line for line in told if line.startswith("step ")]


def test_the_first_rank_writes(tiny_data: TinyData, tmp_path: Path) -> None:
    run_ranks(2, on_ranks, tiny_data, tmp_path / "plain", 0)
    first, second = run_ranks(2, on_ranks, tiny_data, tmp_path / "run", 2)
    assert len(first) == 4 and second == []
    assert differences(tmp_path / "run", tmp_path / "plain") == []


def test_a_log_keeps_them_as_text(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nanogpt2.training.command import main

    package = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", package)
    place = ["--data", str(tiny_data.data_dir), "--tokenizer", str(tiny_data.tokenizer_dir)]
    sizes = ["--depth=2", "--set=aspect=16", "--set=head_dim=16", "--set=model.sequence_len=32"]
    sizes += ["--set=batch_tokens=256", "--steps=2", "--eval-every=-1", "--device=cpu"]
    log = ["--out", str(tmp_path / "run"), "--log", "wandb", "--sample-every", "2"]
    assert main([*place, *sizes, *log]) == 0
    (before, _), (values, step) = package.rows
    assert "sample 1" not in before and step == 2
    assert values["sample 1"].startswith(PROMPTS[0]) and values["sample 2"].startswith(PROMPTS[1])
