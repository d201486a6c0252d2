"""fp16 with a scaled loss: it learns as fp32 does, leaves out what overflows, and continues."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.training import loss_scale
from nanogpt2.training.checkpoint import list_checkpoints, read_state
from nanogpt2.training.fit import fit
from nanogpt2.training.loss_scale import LossScale
from nanogpt2.training.ranks import Ranks
from nanogpt2.training.settings import StepReport
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import RECIPE, TinyData, curve, differences
from tests.training.test_fit import tokens
from tests.training.tiny import state_of, tiny_model


def scales(run: Path) -> list[float]:
    """The loss scale after every step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss_scale"] for line in lines]


def test_the_loss_is_the_models_and_its_gradient_is_scaled() -> None:
    model, optimizer = tiny_model()
    inputs, targets = next(tokens())
    plain = model(inputs, targets)
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    scaled = LossScale(model, optimizer)
    loss = scaled(inputs, targets)
    loss.backward()
    assert loss.item() == plain.item()
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, loss_scale.FIRST * expected[name], rtol=1e-3, atol=1e-2)


def test_in_fp32_a_scaled_run_is_the_run_to_the_bit() -> None:
    """Powers of two are exact: what is left is the optimizer's own run."""
    plain, optimizer = tiny_model()
    expected = fit(plain, optimizer, tokens(), 6, RECIPE)
    model, theirs = tiny_model()
    both: Any = LossScale(model, theirs)
    assert fit(both, both, tokens(), 6, RECIPE) == expected
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_fp16_bf16_and_fp32_agree_within_the_spread_of_seeds(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    def final(precision: str, seed: int) -> float:
        out = tmp_path / f"{precision}-{seed}"
        changes: dict[str, Any] = {"eval_every": 0, "eval_tokens": 4096, "checkpoint_every": 0}
        result = train(tiny_data.settings(out, precision=precision, seed=seed, **changes))
        assert result.precision == precision and result.val_bpb is not None
        return result.val_bpb

    by_seed = [final("fp32", seed) for seed in range(4)]
    spread = max(by_seed) - min(by_seed)
    assert spread > 0
    for precision in ("fp16", "bf16"):
        for seed in range(2):
            assert abs(final(precision, seed) - by_seed[seed]) < spread
    assert set(scales(tmp_path / "fp16-0")) == {loss_scale.FIRST}, "nothing overflowed"


def test_an_overflow_is_left_out_and_halves_the_scale(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**30)
    told: list[str] = []
    result = train(tiny_data.settings(tmp_path, precision="fp16", eval_every=-1), None, told.append)
    seen = scales(tmp_path)
    skipped = sum("step left out" in line for line in told)
    assert skipped > 0 and seen[-1] == 2.0 ** (30 - skipped)
    assert seen == sorted(seen, reverse=True)
    assert all(math.isfinite(line["loss"]) for line in curve(tmp_path))
    assert result.step == 24
    assert read_state(list_checkpoints(tmp_path)[0])["progress"]["loss_scale"] == {
        "scale": seen[-1],
        "clean": seen.count(seen[-1]) - 1,  # the first of them made it what it is
        "skipped": skipped,
    }


def test_a_step_that_is_left_out_changes_nothing() -> None:
    model, optimizer = tiny_model()
    both = LossScale(model, optimizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = state_of(optimizer)
    both(*next(tokens())).backward()
    model.lm_head.weight.grad[0, 0] = math.inf
    both.step()
    assert both.record() == {"scale": loss_scale.FIRST / 2, "clean": 0, "skipped": 1}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(t, state[name]) for name, t in state_of(optimizer).items())
    assert {group["step"] for group in optimizer.param_groups} == {0}


def test_all_ranks_leave_out_what_overflowed_on_one() -> None:
    class Two(Ranks):
        def sum(self, values: list[float]) -> list[float]:
            return [mine + 1.0 for mine in values]  # the other one's overflowed

    model, optimizer = tiny_model()
    both = LossScale(model, optimizer, Two(0, 0, 2, torch.device("cpu")))
    both(*next(tokens())).backward()
    both.step()
    assert both.skipped == 1 and {group["step"] for group in optimizer.param_groups} == {0}


def test_the_scale_grows_after_a_long_time_and_gives_up_below_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_scale, "GROW_EVERY", 3)
    model, optimizer = tiny_model()
    both: Any = LossScale(model, optimizer)
    fit(both, both, tokens(), 7, RECIPE)
    assert both.record() == {"scale": 4 * loss_scale.FIRST, "clean": 1, "skipped": 0}
    both.scale = 1.0
    both(*next(tokens())).backward()
    model.lm_head.weight.grad[0, 0] = math.nan
    with pytest.raises(UserError, match="use precision fp32"):
        both.step()


def test_interrupted_in_fp16_and_continued_is_the_unbroken_run(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps left out before the interruption, and a scale that grows after it."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**30)
    monkeypatch.setattr(loss_scale, "GROW_EVERY", 5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_data.settings(whole, precision="fp16"))
    assert len(set(scales(whole))) > 2 and scales(whole) != sorted(scales(whole), reverse=True)

    def stop(report: StepReport) -> None:
        if report.step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(tiny_data.settings(parts, precision="fp16"), stop).stopped_by == "SIGTERM"
    train(tiny_data.settings(parts, precision="fp16"))
    assert differences(parts, whole) == [] and scales(parts) == scales(whole)
