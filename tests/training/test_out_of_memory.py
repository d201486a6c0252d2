"""A GPU whose memory runs out: passes are cut in the first steps, and a sentence says so later."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, curve, differences
from tests.training.ranks import run_ranks
from tests.training.test_trainer import interrupt


@contextmanager
def memory_for(rows: int, when: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """A stand-in for a GPU: a pass that learns from more rows than this does not fit."""
    forward = GPT.forward

    def tight(model: GPT, idx: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        if len(idx) > rows and model.training and when():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return forward(model, idx, *rest, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GPT, "forward", tight)
        yield


def test_a_model_that_does_not_fit_is_told_before_the_steps(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("nanogpt2.training.trainer.build_learner", too_large)
    with pytest.raises(UserError, match="memory of cpu does not hold the model.*smaller --depth"):
        train(tiny_data.settings(tmp_path))


@pytest.mark.parametrize(("rows", "fitting"), [(2, 2), (1, 1), (3, 2)])
def test_smaller_passes_learn_what_a_smaller_batch_learns(
    tiny_data: TinyData, tmp_path: Path, rows: int, fitting: int
) -> None:
    asked = tmp_path / "asked"
    train(tiny_data.settings(asked, device_batch_size=fitting))
    told: list[str] = []
    with memory_for(rows):
        stopped = train(tiny_data.settings(tmp_path / "run"), interrupt(7, signal.SIGTERM))
        result = train(tiny_data.settings(tmp_path / "run"), on_message=told.append)
    assert (stopped.step, result.resumed_from) == (8, 8)
    assert result.device_batch_size == stopped.device_batch_size == fitting
    assert differences(tmp_path / "run", asked) == []
    cuts = [line for line in told if "does not hold a pass" in line]
    assert f"(device_batch_size={fitting} begins so)" in cuts[-1]
    assert f"going on with {8 // fitting} passes of {fitting} rows a step" in cuts[-1]


def test_what_runs_out_in_the_middle_of_a_step_is_learned_once(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    """The first of two passes fits, the second does not: the step begins anew."""
    asked = tmp_path / "asked"
    train(tiny_data.settings(asked, device_batch_size=2))
    calls: list[int] = []
    with memory_for(2, lambda: calls.append(1) or len(calls) > 1):  # type: ignore[func-returns-value]
        train(tiny_data.settings(tmp_path / "run"))
    assert curve(tmp_path / "run") == curve(asked)


def test_one_row_that_does_not_fit_is_said(tiny_data: TinyData, tmp_path: Path) -> None:
    with (
        memory_for(0),
        pytest.raises(UserError, match="after step 0 the memory of cpu ran out; set recompute=on,"),
    ):
        train(tiny_data.settings(tmp_path))


def test_later_one_sentence_names_the_setting_and_nothing_half_is_saved(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    full: list[bool] = []

    def fill(report: Any) -> None:
        full.extend([True] if report.step == 10 else [])

    with (
        memory_for(2, lambda: bool(full)),
        pytest.raises(UserError, match="after step 10 .* recompute=on or device_batch_size=2") as e,
    ):
        train(tiny_data.settings(tmp_path), fill)
    newest = list_checkpoints(tmp_path)[0]
    assert str(newest) in str(e.value) and not list(tmp_path.glob("checkpoints/*.partial"))
    train(tiny_data.settings(tmp_path, device_batch_size=2))


def test_an_update_that_does_not_fit_is_not_taken_again(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have changed parameters already."""

    def full(optimizer: MuonAdamW) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(MuonAdamW, "step", full)
    with pytest.raises(UserError, match="after step 0 the memory"):
        train(tiny_data.settings(tmp_path))


def train_tight(settings: Any) -> int:
    import os

    with memory_for(2 if os.environ["RANK"] == "1" else 99):
        return train(settings).device_batch_size


def test_all_ranks_cut_what_one_of_them_cannot_hold(tiny_data: TinyData, tmp_path: Path) -> None:
    settings = tiny_data.settings(tmp_path / "run", steps=6)
    assert run_ranks(2, train_tight, settings) == [2, 2]
    asked = tiny_data.settings(tmp_path / "asked", steps=6, device_batch_size=2)
    run_ranks(2, train_tight, asked)
    assert differences(tmp_path / "run", tmp_path / "asked") == []
