"""What the chapter on the loop draws and measures."""

from __future__ import annotations

import re

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.depth import dial
from nanogpt2.lab.small_data import small_data
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.recipes import get_recipe
from nanogpt2.studies import loop
from nanogpt2.studies.loop import changes


@pytest.mark.parametrize("record", loop.RECORDS)
def test_schedules_are_what_the_trainer_sets(record: str) -> None:
    recipe, found = get_recipe(record), dial(recipe=record)
    model = GPT(lab.small_config(1, n_embd=32, n_head=1, n_kv_head=1))
    optimizer = build_optimizer(
        model, recipe, lr_scale=found.lr_scale, weight_decay=found.weight_decay
    )
    muon = next(group for group in optimizer.param_groups if group["kind"] == "muon")
    alt = loop.schedule_frame(record)[1]
    row = {name: row for name, *row in loop.schedule_rows()}[record]
    total, rate, warm, flat, down, _, decay = row
    assert f"{total:,} steps" in alt and total == warm + flat + down == found.iterations
    for step, begins in ((0, "starts at"), (warm + flat, "is"), (total - 1, "ends at")):
        apply_schedules(optimizer, recipe, step, total)
        assert f"{begins} {muon['lr']:.4f}" in alt
        if step == warm + flat:
            assert f"{muon['lr']:.4f}" == rate
    assert f"to {muon['momentum']:.2f}; its weight decay from {decay} to" in alt
    assert f"to {muon['weight_decay']:.4f}." in alt


def test_rates_are_the_recipes_times_width_and_batch() -> None:
    rows = {name: row for name, *row in loop.rate_rows(24, "run1")}
    width = (1536 / 768) ** -0.5
    assert rows["wte"] == ["adamw", 0.3, pytest.approx(0.3 * width)]
    assert rows["lm_head"] == ["adamw", 0.004, pytest.approx(0.004 * width)]
    assert rows["resid_lambdas"] == ["adamw", 0.005, 0.005]
    assert rows["matrices"] == ["muon", 0.02, 0.02]
    later = {name: row for name, *row in loop.rate_rows(24, "run6")}
    assert later["matrices"][2] == pytest.approx(0.02 * 2**0.5)
    assert later["x0_lambdas"][2] == pytest.approx(0.5 * 2**0.5)


def test_the_watched_number_moves_as_adamw_says() -> None:
    found = loop.followed(4)
    recipe = lab.small_recipe()
    gradients, (beta1, beta2) = found["gradient"], recipe.lm_head.betas
    mean = root = 0.0
    for step, g in enumerate(gradients, 1):
        mean, root = beta1 * mean + (1 - beta1) * g, beta2 * root + (1 - beta2) * g * g
        assert found["mean"][step - 1] == pytest.approx(mean / (1 - beta1**step), rel=1e-4)
        assert found["root"][step - 1] == pytest.approx((root / (1 - beta2**step)) ** 0.5, rel=1e-4)
    rate = recipe.lm_head.lr * (96 / 768) ** -0.5
    assert abs(found["change"][0]) == pytest.approx(rate, rel=1e-3)  # the first step is one rate
    assert found["value"][-1] == pytest.approx(
        found["value"][0] + sum(found["change"][1:]), abs=1e-6
    )
    assert len(found["norm"]) == 4 and all(norm > 0 for norm in found["norm"])
    rows = {kind: sizes for kind, *sizes in loop.moved_rows(found["moved"], (0, 3))}
    assert {"wte", "lm_head", "matrices", "x0_lambdas", "resid_lambdas"} <= set(rows)
    assert rows["lm_head"][0] > rows["lm_head"][1] > 0


def test_noise_and_signal_are_told_apart() -> None:
    """Averages of n pieces have 1/n of the noise; what the formula finds predicts all of them."""
    run = loop.tiny_run(steps=4)
    found = loop.noise(run.model(), pieces=16)
    assert found["rows"] == [1, 2, 4, 8, 16]
    squares, signal, spread = found["squares"], found["signal"], found["spread"]
    assert squares == sorted(squares, reverse=True) and spread > 0
    assert squares[0] == pytest.approx(signal + spread, rel=1e-4)
    assert squares[-1] == pytest.approx(signal + spread / 16, rel=1e-4)
    assert squares[2] == pytest.approx(signal + spread / 4, rel=0.3)  # not used for the fit
    assert found["critical"] == pytest.approx(spread / signal * 128, rel=1e-4)


def test_one_thing_differs_in_each_group_of_runs() -> None:
    found = loop.spread_runs(3, (0, 1))
    bpb = {name: [run.bpb for run in group] for name, group in found.items()}
    assert all(len({run.folder for run in group}) == 2 for group in found.values()), "none twice"
    for name in ("start values", "order of the data"):
        assert len(set(bpb[name])) == 2, name
    starts = [run.curve[0]["bpb"] for run in found["order of the data"]]
    assert starts[0] == starts[1]  # one start, then other text
    (row,) = loop.spread_rows({"order of the data": found["order of the data"]})
    a, b = bpb["order of the data"]
    assert row[:2] == ["order of the data", 2]
    assert row[2:] == pytest.approx([(a + b) / 2, abs(a - b) / 2**0.5])


def test_rows_that_are_turned_are_the_same_rows() -> None:
    data = small_data()
    right = data.batch(3, 4, 16, 0)
    with changes.RowsTurned(1)():
        turned = data.batch(3, 4, 16, 0)
    for whole, other in zip(right, turned, strict=True):
        assert torch.equal(other[1:], whole[:-1]) and torch.equal(other[0], whole[-1])


def test_a_warm_down_pays_where_noise_holds_the_loss_up_and_costs_where_it_does_not() -> None:
    def ends(rate: float) -> list[float]:
        alt = loop.valley_frame(rate, 0.4)[1]
        return [float(n) for n in re.findall(r"at (\d\.\d+)", alt)]

    down, flat = ends(0.5)
    assert down < 0.6 * flat
    down, flat = ends(0.05)
    assert down > flat


def test_a_stuck_loader_reads_the_same_rows_and_a_right_one_does_not() -> None:
    data = small_data()
    first, second = (data.batch(step, 2, 16, 0)[0] for step in (0, 1))
    assert not torch.equal(first, second)
    with changes.stuck_loader():
        assert torch.equal(data.batch(7, 2, 16, 0)[0], first)


def test_the_patients_have_what_the_page_says_they_have() -> None:
    found = loop.patients(10)
    ends = {letter: run.series("loss")[-1] for letter, run in found.items()}
    assert min(ends, key=ends.__getitem__) == "B"  # by heart
    assert found["B"].bpb > found["C"].bpb == min(run.bpb for run in found.values())
    assert found["A"].curve[1]["bpb"] > found["A"].curve[0]["bpb"] > found["D"].curve[1]["bpb"]


def test_gradients_that_are_not_forgotten_add_up() -> None:
    model = GPT(loop.tiny_config())
    with loop.forgotten_zero():
        model.resid_lambdas.grad = torch.ones(2)
        model.zero_grad(set_to_none=True)
        assert model.resid_lambdas.grad is not None
    model.zero_grad(set_to_none=True)
    assert model.resid_lambdas.grad is None


def test_pictures_say_what_they_show() -> None:
    assert "16,704 times" in loop.step_picture("why").html
    found = {"gradient": [4.0, 0.0], "mean": [4.0, 1.78], "root": [4.0, 2.79], "value": [1.0, 0.4]}
    assert "between 0.64 and 1; the number goes from 1 to 0.4" in loop.moment_lines(found).html
    one = {"rows": [1, 2], "squares": [3.0, 2.0], "signal": 1.0, "spread": 2.0}
    assert "early: from 3 at one row to 2 at 2, the gradient itself 1" in (
        loop.noise_lines({"early": one}).html
    )


def test_batches_have_one_budget_and_meet_at_the_rows_of_every_other_run() -> None:
    found = loop.batch_runs(4)
    root, fixed = found["by the root"], found["as they are"]
    assert {run.tokens for run in (*root.values(), *fixed.values())} == {4 * 8 * 128}
    assert [root[rows].bpb == fixed[rows].bpb for rows in root] == [False, True, False, False]
    shown = loop.batch_lines(found).html
    best = min(run.bpb for run in root.values())
    assert re.search(rf"rates by the root: best at \d+ rows with {best:.3f}", shown)
