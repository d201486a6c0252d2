"""A run's length by the clock: it ends in time, is set once, and stays; by a clock of our own."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.files import MADE
from nanogpt2.model.gpt import GPT
from nanogpt2.optim.schedules import learning_rate, muon_momentum
from nanogpt2.recipes import RECIPES
from nanogpt2.training import length as by_clock
from nanogpt2.training.checkpoint import list_checkpoints, read_state
from nanogpt2.training.length import FIRST_STEPS, choose, holds
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import RECIPE, TinyData, curve, differences, start
from tests.training.test_trainer import interrupt

LONG = replace(RECIPE, iterations=90)
PASS, MEASURED_PASS = 0.5, 0.25
"""seconds that a pass takes on our clock, when it is learned from (two a step), and when not"""


class Clock:
    """Moves when the model is called."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made, forward = Clock(), GPT.forward

    def slow(model: GPT, *arguments: Any, **named: Any) -> torch.Tensor:
        made.now += PASS if model.training else MEASURED_PASS
        return forward(model, *arguments, **named)

    monkeypatch.setattr(GPT, "forward", slow)
    monkeypatch.setattr("nanogpt2.training.trainer.time", made)
    return made


def minutes_run(data: TinyData, out: Path, minutes: float | None = 1.0, **changes: Any) -> Any:
    """About ten measurements and checkpoints, whatever its length."""
    watch = {"checkpoint_every": None, "eval_every": None, "eval_tokens": None, "keep_last": 99}
    changes = {"recipe": LONG, "minutes": minutes, **watch, **changes}
    return data.settings(out, **changes)


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / by_clock.FILE).read_text())["length"]


def test_it_ends_in_time_and_uses_it(tiny_data: TinyData, tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    result = train(minutes_run(tiny_data, tmp_path), on_message=told.append)
    assert 0.85 * 60 < clock.now <= 60
    found = record(tmp_path)
    assert result.step == result.steps == found["steps"] < found["asked"] == 90
    assert (found["after"], found["step_seconds"]) == (FIRST_STEPS, 2 * PASS)
    assert found["tokens_per_second"] == 256 and found["why"] in told
    lines = curve(tmp_path)
    assert lines[-1]["lr"] == learning_rate(LONG, result.steps - 1, result.steps) < 0.1
    assert 8 <= sum("val_bpb" in line for line in lines) <= 12
    assert read_state(list_checkpoints(tmp_path)[0])["length"] == found


def test_a_fast_machine_goes_on_for_longer(tiny_data: TinyData, tmp_path: Path, clock: Clock):
    result = train(minutes_run(tiny_data, tmp_path, 2.5))
    assert result.steps > 90 and 0.85 * 150 < clock.now <= 150


@pytest.mark.parametrize("minutes", [1.0, 10.0])
def test_an_upper_bound_only_shortens(
    tiny_data: TinyData, tmp_path: Path, clock: Clock, minutes: float
) -> None:
    bound, plain = tmp_path / "bound", tmp_path / "plain"
    result = train(minutes_run(tiny_data, bound, minutes, lengthen=False))
    found = record(bound)
    assert found["steps"] == result.steps and found["asked"] == 90
    if minutes == 1:
        assert result.steps < 90 and "90 steps take about" in found["why"]
        return
    assert result.steps == 90 and "as the recipe says" in found["why"]
    train(minutes_run(tiny_data, plain, None))
    assert differences(bound, plain) == [], "time enough changes nothing"
    assert not (plain / by_clock.FILE).exists()


def test_killed_and_resumed_it_keeps_its_length_to_the_bit(
    tiny_data: TinyData, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(minutes_run(tiny_data, whole))
    asked = minutes_run(tiny_data, parts)
    stopped = train(asked, interrupt(25, signal.SIGTERM))
    assert stopped.steps == record(whole)["steps"]
    monkeypatch.setattr("tests.training.test_length.PASS", 3.0)  # it goes on, six times as slow
    train(asked, interrupt(40, signal.SIGINT))
    assert train(asked).steps == record(whole)["steps"]
    assert record(parts) == record(whole)
    assert differences(parts, whole) == []


def test_killed_before_its_first_checkpoint_it_has_its_length_from_the_folder(
    tiny_data: TinyData, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(minutes_run(tiny_data, whole))
    again.mkdir()
    asked = minutes_run(tiny_data, again)
    by_clock.write(asked, by_clock.Length(**record(whole)))
    (again / MADE).write_bytes((whole / MADE).read_bytes())
    monkeypatch.setattr("tests.training.test_length.PASS", 3.0)
    train(asked)
    assert differences(again, whole) == []


def test_what_another_run_left_is_not_taken(
    tiny_data: TinyData, tmp_path: Path, clock: Clock
) -> None:
    train(minutes_run(tiny_data, tmp_path / "other", seed=1))
    (tmp_path / "run").mkdir()
    for name in (by_clock.FILE, MADE):
        (tmp_path / "run" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    train(minutes_run(tiny_data, tmp_path / "run", None, recipe=RECIPE))
    assert not (tmp_path / "run" / by_clock.FILE).exists()


def test_stopped_while_it_measures_it_measures_again(
    tiny_data: TinyData, tmp_path: Path, clock: Clock
) -> None:
    asked = minutes_run(tiny_data, tmp_path)
    train(asked, interrupt(6, signal.SIGTERM))
    assert read_state(list_checkpoints(tmp_path)[0])["length"] is None
    assert not (tmp_path / by_clock.FILE).exists()
    result = train(minutes_run(tiny_data, tmp_path, 1.1))  # and may be given other minutes
    assert record(tmp_path)["after"] == 7 + FIRST_STEPS and record(tmp_path)["minutes"] == 1.1
    assert clock.now <= 66 and result.step == record(tmp_path)["steps"]
    with pytest.raises(UserError, match=r"minutes is 1\.1 there and 3\.0 here"):
        train(minutes_run(tiny_data, tmp_path, 3.0))
    with pytest.raises(UserError, match=r"minutes is 1\.1 there and None here"):
        train(minutes_run(tiny_data, tmp_path, None))


def test_a_run_that_began_with_its_own_length_keeps_it(
    tiny_data: TinyData, tmp_path: Path, clock: Clock
) -> None:
    train(minutes_run(tiny_data, tmp_path, None), interrupt(8, signal.SIGTERM))
    with pytest.raises(UserError, match=r"minutes is None there and 1\.0 here"):
        train(minutes_run(tiny_data, tmp_path))
    result = train(minutes_run(tiny_data, tmp_path, 0.1, lengthen=False))
    assert result.step == 90 and not (tmp_path / by_clock.FILE).exists()


def test_too_few_minutes_are_refused(tiny_data: TinyData, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(
        UserError, match="0.5 minutes are too few: at 1 s a step they hold "
    ) as told:
        train(minutes_run(tiny_data, tmp_path, 0.5))
    assert "\n" not in str(told.value)
    enough = float(str(told.value).split("minutes=")[1].split()[0])
    result = train(minutes_run(tiny_data, tmp_path, enough))
    assert result.resumed_from is None, "nothing of the first attempt was kept"
    assert holds(LONG, FIRST_STEPS, result.steps) and result.steps < 45


def test_a_run_too_short_to_measure_is_refused_before_it_begins(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="a run of 24 steps at warmdown_ratio 0.5: its rates fall"):
        train(minutes_run(tiny_data, tmp_path / "run", recipe=RECIPE))
    always = replace(LONG, warmdown_ratio=1.0)
    with pytest.raises(UserError, match="warmdown_ratio 1: its rates fall"):
        train(minutes_run(tiny_data, tmp_path / "run", recipe=always))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_steps_are_the_same_whatever_the_length(name: str) -> None:
    """As far as ``holds`` says: by the schedules themselves."""
    recipe = RECIPES[name]

    def first(steps: int) -> list[Any]:
        schedules = (learning_rate, muon_momentum)
        return [f(recipe, step, steps) for f in schedules for step in range(FIRST_STEPS)]

    steady = [n for n in range(400) if holds(recipe, FIRST_STEPS, n)]
    same = [n for n in range(FIRST_STEPS, 400) if first(n) == first(10**9)]
    assert set(steady) <= set(same) and steady == list(range(steady[0], 400))
    if not recipe.warmup_steps:  # which comes before the warm-down, however short the run
        assert steady == same


@pytest.mark.parametrize("eval_every", [-1, 0, 7, None])
@pytest.mark.parametrize("minutes", [2.0, 7.3, 60.0])
def test_measurements_count(
    tiny_data: TinyData, tmp_path: Path, eval_every: int | None, minutes: float
) -> None:
    watch = {"eval_every": eval_every, "eval_tokens": 1000}
    asked = minutes_run(tiny_data, tmp_path, minutes, **watch)
    steps = choose(asked, 20, spent=30.0, tokens_per_second=256.0).steps
    every = by_clock.loop_of(asked, steps).eval_every or 0
    times = {-1: 0, 0: 1}.get(every) if every < 1 else -(-steps // every)
    seconds = 30 + (steps - 20) + times * 0.5 * 1000 / 256
    assert 0.9 * 60 * minutes - 3 < seconds <= 0.9 * 60 * minutes


def test_ranks_agree_on_it(tiny_data: TinyData, tmp_path: Path) -> None:
    """Each has seen another speed; the first one's counts."""
    ranks = start(minutes_run(tiny_data, tmp_path, 1e5, lengthen=False), world_size=2)
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0], (tmp_path / "log.txt").read_text()
    assert record(tmp_path)["steps"] == len(curve(tmp_path)) == 90
