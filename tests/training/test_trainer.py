"""The loop: it learns, it continues bit for bit, it stops well, and it says what is wrong."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.held_out import held_out_batches
from nanogpt2.model.gpt import GPT
from nanogpt2.training.checkpoint import list_checkpoints, read_state
from nanogpt2.training.command import main
from nanogpt2.training.loading import find_tokenizer, load_model
from nanogpt2.training.settings import StepReport, TrainResult
from nanogpt2.training.stopping import Stopper, agreed
from nanogpt2.training.trainer import Trainer, train
from tests.drills.tiny_run import RECIPE, TinyData, curve, differences, start
from tests.waiting import PATIENCE, wait_until

STEPS = 24


def interrupt(step: int, number: signal.Signals) -> Any:
    """A callback that sends this process a signal after ``step``."""

    def on_step(report: StepReport) -> None:
        if report.step == step:
            os.kill(os.getpid(), number)

    return on_step


def test_a_run_learns_and_leaves_its_files(tiny_data: TinyData, unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[0]["loss"] == pytest.approx(math.log(270), abs=0.2), "it starts knowing nothing"
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1, "24 small steps; batches differ by 0.02"
    assert [line["step"] for line in lines if "val_bpb" in line] == [6, 12, 18, 24]
    for line in lines:
        assert line["grad_norm"] > 0 and line["tokens_per_second"] > 0 and line["memory_bytes"] > 0
        assert line["tokens"] == line["step"] * 256
    result = json.loads((unbroken / "training.json").read_text())
    assert result["stopped_by"] is None and result["resumed_from"] is None
    assert (unbroken / result["checkpoint"]).is_dir()
    model = load_model(unbroken)
    tokenizer = find_tokenizer(unbroken / result["checkpoint"])
    held_out = list(held_out_batches(tiny_data.data_dir, tokenizer, 512, 8, 32))
    measured = bits_per_byte(model, held_out, tokenizer.token_bytes)
    assert measured == pytest.approx(result["val_bpb"], rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_continued_is_the_unbroken_run(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path, number: signal.Signals
) -> None:
    settings = tiny_data.settings(tmp_path)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    # Step 7 is between checkpoints. At step 12 validation is due and left for the next part.
    for part, step in enumerate((7, 12)):
        stopped = train(settings, interrupt(step, number))
        assert (stopped.step, stopped.stopped_by) == (step + 1, number.name)
        assert stopped.exit_code == 128 + number and stopped.resumed_from == (8 if part else None)
        assert (tmp_path / str(stopped.checkpoint)).name == f"step_{step + 1:06d}"
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    result = train(settings)
    assert (result.step, result.resumed_from, result.exit_code) == (STEPS, 13, 0)
    assert differences(tmp_path, unbroken) == []


def test_a_signal_during_validation_is_heard_at_once(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nanogpt2.evals import during

    def interrupted(*arguments: Any, **named: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on measuring")

    settings = tiny_data.settings(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(during, "bits_per_byte", interrupted)
        stopped = train(settings)
        assert (stopped.step, stopped.stopped_by) == (6, "SIGTERM")
    train(settings)  # measures what was left out
    assert differences(tmp_path, unbroken) == []


def test_a_signal_after_the_last_step_is_heard_too(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nanogpt2.evals import during

    def interrupted(*arguments: Any, **named: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on measuring")

    settings = tiny_data.settings(tmp_path, steps=6, eval_every=0)
    with monkeypatch.context() as patched:
        patched.setattr(during, "bits_per_byte", interrupted)
        stopped = train(settings)
    assert (stopped.step, stopped.val_bpb, stopped.exit_code) == (6, None, 143)
    ended = train(settings)
    assert ended.val_bpb and (ended.step, ended.exit_code) == (6, 0)
    told = train(tiny_data.settings(tmp_path / "told", steps=6), interrupt(6, signal.SIGTERM))
    assert (told.step, told.exit_code) == (6, 143) and told.val_bpb, "after all was done"


class Core:
    """An evaluator that is killed the first time."""

    asked = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def evaluate(self, model: Any, stop: Any) -> Any:
        Core.asked += 1
        if Core.asked == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return SimpleNamespace(core=0.25)


def test_core_that_a_signal_cut_short_is_measured_when_the_run_goes_on(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanogpt2.evals.during.CoreEvaluator", Core)
    settings = tiny_data.settings(tmp_path, core_every=6, core_bundle=tmp_path)
    stopped = train(settings)
    assert (stopped.step, stopped.stopped_by) == (6, "SIGTERM")
    train(settings)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["core"] for line in lines if "core" in line} == dict.fromkeys(
        (6, 12, 18, 24), 0.25
    )
    theirs = {line["step"]: line.get("val_bpb") for line in curve(unbroken)}
    assert {line["step"]: line.get("val_bpb") for line in lines} == theirs


def test_a_finished_run_is_left_alone(tiny_data: TinyData, unbroken: Path) -> None:
    before = curve(unbroken)
    result = train(tiny_data.settings(unbroken), lambda report: pytest.fail("it took a step"))
    assert result.step == STEPS and result.stopped_by is None
    assert curve(unbroken) == before


def test_a_line_lost_between_a_checkpoint_and_the_kill_is_written_again(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    settings = tiny_data.settings(tmp_path)
    assert train(settings, interrupt(7, signal.SIGTERM)).step == 8
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    train(settings)
    assert curve(tmp_path) == curve(unbroken)


def test_killed_runs_continue(tiny_data: TinyData, unbroken: Path, tmp_path: Path) -> None:
    settings = tiny_data.settings(tmp_path)
    while not list_checkpoints(tmp_path):
        (rank,) = start(settings)
        wait_until(partial(list_checkpoints, tmp_path), rank.is_alive)
        rank.kill()
        rank.join()
    train(settings)
    assert differences(tmp_path, unbroken) == []


def test_several_ranks_stop_together_when_one_is_told_to(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    settings = tiny_data.settings(tmp_path, eval_every=0, checkpoint_every=0, steps=4000)
    ranks = start(settings, world_size=2)
    metrics = tmp_path / "metrics.jsonl"
    wait_until(
        lambda: metrics.is_file() and metrics.stat().st_size,
        lambda: all(rank.is_alive() for rank in ranks),
    )
    os.kill(ranks[1].pid, signal.SIGTERM)
    for rank in ranks:
        rank.join(PATIENCE)
    assert [rank.exitcode for rank in ranks] == [143, 143], (tmp_path / "log.txt").read_text()
    (checkpoint,) = list_checkpoints(tmp_path)
    assert read_state(checkpoint)["world_size"] == 2
    told: list[str] = []
    on_step = interrupt(read_state(checkpoint)["step"] + 3, signal.SIGTERM)
    result = train(settings, on_step, told.append)
    assert result.resumed_from == read_state(checkpoint)["step"]
    assert "2 ranks wrote it and 1 continue: resharded" in told


def test_a_run_can_be_cut_by_time(tiny_data: TinyData, tmp_path: Path) -> None:
    result = train(tiny_data.settings(tmp_path, max_seconds=1e-6))
    assert (result.step, result.stopped_by, result.exit_code) == (2, "max_seconds", 0)
    assert list_checkpoints(tmp_path)


def test_accumulation_changes_nothing_but_rounding(tiny_data: TinyData, tmp_path: Path) -> None:
    runs = {}
    for rows in (1, 2, 8):
        run = tmp_path / str(rows)
        train(tiny_data.settings(run, device_batch_size=rows, steps=3, eval_every=-1))
        runs[rows] = curve(run)
    for rows in (1, 2):
        for line, expected in zip(runs[rows], runs[8], strict=True):
            assert line["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-2)


def test_the_gradient_norm_is_that_of_the_whole_batch(tiny_data: TinyData, tmp_path: Path) -> None:
    seen: list[float] = []

    def check(model: GPT, *arguments: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if gradients:  # before the second pass they are of the first: the last value counts
            seen.append(math.sqrt(sum(g.double().square().sum().item() for g in gradients)))

    original = GPT.zero_grad
    try:
        GPT.zero_grad = lambda model, **kw: (check(model), original(model, **kw))[1]  # type: ignore
        train(tiny_data.settings(tmp_path, steps=2, eval_every=-1))
    finally:
        GPT.zero_grad = original  # type: ignore[method-assign]
    assert [line["grad_norm"] for line in curve(tmp_path)] == pytest.approx(seen, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf, 100.0])
def test_a_loss_gone_wrong_stops_the_run(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    calls = []
    forward = GPT.forward

    def wrong(model: GPT, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        loss = forward(model, *arguments, **options)
        return loss * value if len(calls) > 20 else loss  # two passes a step: in the eleventh

    monkeypatch.setattr(GPT, "forward", wrong)
    with pytest.raises(UserError, match="step 11: the loss ") as caught:
        train(tiny_data.settings(tmp_path, eval_every=-1))
    newest = list_checkpoints(tmp_path)[0]  # after step 9, or nearby if the one before took long
    assert f"the last good checkpoint is {newest};" in str(caught.value)
    for folder in list_checkpoints(tmp_path):
        assert all(torch.isfinite(p).all() for p in load_model(folder).parameters())


def test_recomputed_activations_change_no_bit(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    train(tiny_data.settings(tmp_path, recompute="on"))
    assert differences(tmp_path, unbroken) == []


def test_messages_and_quiet_precision(tiny_data: TinyData, tmp_path: Path) -> None:
    told: list[str] = []
    recipe = replace(RECIPE, precision="fp8")
    result = train(tiny_data.settings(tmp_path, recipe=recipe, steps=1), on_message=told.append)
    assert result.precision in ("bf16", "fp32")
    assert any("asks for fp8" in line and result.precision in line for line in told)
    assert any("documents in" in line and "read by one rank" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": replace(RECIPE, model=replace(RECIPE.model, vocab_size=300))}, "270 tokens"),
        ({"recipe": replace(RECIPE, batch_tokens=100)}, "whole number of rows"),
        ({"data": Path("nowhere")}, "nowhere"),
        ({"tokenizer": Path("nowhere")}, "nowhere"),
        ({"device": "tpu"}, "device"),
        ({"resume_from": Path("nowhere")}, "nowhere"),
        ({"core_every": 5}, "core_every is set and core_bundle is not"),
    ],
)
def test_bad_settings(tiny_data: TinyData, tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(tiny_data.settings(tmp_path / "run", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"keep_last": 0},
        {"precision": "fp64"},
        {"compile": "maybe"},
        {"checkpoint_every": -1},
        {"eval_every": -2},
        {"max_seconds": math.nan},
        {"max_seconds": -1.0},
        {"seed": 2**63},
    ],
)
def test_impossible_settings(tiny_data: TinyData, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(UserError):
        tiny_data.settings(tmp_path, **changes)


def test_only_the_same_run_is_continued(tiny_data: TinyData, tmp_path: Path) -> None:
    train(tiny_data.settings(tmp_path, steps=3, eval_every=-1))
    wider = replace(RECIPE, aspect=16)
    for changes, words in (
        ({"recipe": wider}, "recipe.aspect is 8 there and 16 here"),
        (
            {"recipe": replace(RECIPE, warmdown_ratio=0.1)},
            "recipe.warmdown_ratio is 0.5 there and 0.1 here",
        ),
        ({"steps": 6}, "recipe.iterations is 3 there and 6 here"),
        ({"resume": False}, "checkpoints of an earlier run"),
    ):
        with pytest.raises(UserError, match=words):
            train(tiny_data.settings(tmp_path, **{"steps": 3, **changes}))


def test_an_earlier_checkpoint_by_name(tiny_data: TinyData, unbroken: Path, tmp_path: Path) -> None:
    """From another run's folder it may be continued; in its own the later ones would mislead."""
    first = tmp_path / "first"
    train(tiny_data.settings(first, keep_last=9))
    # a checkpoint that falls due while the one before is being written comes a little later
    earlier = list_checkpoints(first)[1]
    step = int(earlier.name.removeprefix("step_"))
    with pytest.raises(UserError, match="later checkpoints"):
        train(tiny_data.settings(first, resume_from=earlier))
    second = tmp_path / "second"
    result: TrainResult = train(tiny_data.settings(second, resume_from=earlier))
    assert result.resumed_from == step
    assert curve(second) == curve(unbroken)[step:]

    first_of_all = list_checkpoints(first)[-1]
    begun = int(first_of_all.name.removeprefix("step_"))
    third = tiny_data.settings(tmp_path / "third", resume_from=first_of_all)
    assert train(third, interrupt(begun + 5, signal.SIGTERM)).step == begun + 6
    assert train(third).resumed_from == begun + 6, "the same command goes on with what it began"
    assert curve(tmp_path / "third") == curve(unbroken)[begun:]


def test_a_validation_that_another_run_left_out_is_not_made_up_for(
    tiny_data: TinyData, unbroken: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    stopped = train(tiny_data.settings(first), interrupt(11, signal.SIGTERM))
    assert stopped.step == 12 and "val_bpb" not in curve(first)[-1]
    train(tiny_data.settings(second, resume_from=first / str(stopped.checkpoint)))
    assert curve(second) == curve(unbroken)[12:]


def test_a_damaged_checkpoint_by_name(tiny_data: TinyData, tmp_path: Path) -> None:
    train(tiny_data.settings(tmp_path, steps=3, eval_every=-1))
    (folder,) = list_checkpoints(tmp_path)
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="1,000 bytes instead of"):
        train(tiny_data.settings(tmp_path, steps=3, resume_from=folder))


def test_signals_are_left_alone_outside_the_main_thread(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    results: list[TrainResult] = []
    work = lambda: results.append(train(tiny_data.settings(tmp_path, steps=2)))  # noqa: E731
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0].step == 2


def test_the_command(
    tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = (
        "aspect=8",
        "head_dim=8",
        "sequence_len=32",
        "batch_tokens=256",
        "value_gate_channels=4",
    )
    arguments = [
        *("--data", tiny_data.data_dir, "--tokenizer", tiny_data.tokenizer_dir),
        *("--out", tmp_path / "run", "--recipe", "laptop", "--depth", 2, "--steps", 4),
        *("--eval-tokens", 256, "--device", "cpu", "--compile", "off"),
        *(part for size in sizes for part in ("--set", size)),
    ]
    assert main([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr().err
    assert "step 4/4: loss" in shown and "bits/byte" in shown
    assert "held out: " in shown and "the last in order" in shown
    assert load_model(tmp_path / "run").config.vocab_size == 270, "the tokenizer's own"


@pytest.mark.parametrize("is_main", [True, False])
def test_seconds_are_those_of_the_first_ranks_clock(is_main: bool) -> None:
    """The others' go on while they wait for what it writes between steps."""
    late: Any = SimpleNamespace(
        speed=SimpleNamespace(seconds=9.0), loop=SimpleNamespace(max_seconds=3),
        ranks=SimpleNamespace(is_main=is_main), stopper=Stopper(),
    )  # fmt: skip
    assert agreed(Trainer._requests(late)) == ("max_seconds" if is_main else None)
