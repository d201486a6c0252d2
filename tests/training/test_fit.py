"""The loop alone: what it computes, in which order it calls whom, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nanogpt2.errors import UserError
from nanogpt2.optim import apply_schedules
from nanogpt2.training.fit import Point, due, every, fit
from tests.drills.tiny_run import RECIPE
from tests.training.tiny import tiny_model


class Line(nn.Module):
    """y = w x by least squares: one number to learn, and a gradient known by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.w * x - y).square().mean()


def learner(lr: float = 0.1) -> tuple[Line, torch.optim.Optimizer]:
    model = Line()
    return model, torch.optim.SGD(model.parameters(), lr=lr)


def rows(number: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of two points each, no two alike."""
    values = torch.randn(number, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    return [(x, y) for x, y in values]


def tokens(first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of random tokens from number ``first`` on, for ever."""
    while True:
        generator = torch.Generator().manual_seed(first)
        block = torch.randint(0, 270, (4, 9), generator=generator)
        yield block[:, :-1], block[:, 1:]
        first += 1


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5))
def test_steps_are_gradient_descent_on_the_mean_over_the_passes(passes: int, steps: int) -> None:
    data = rows(passes * steps)
    model, optimizer = learner()
    curve = fit(model, optimizer, data, steps, None, passes=passes)
    w = 0.0
    for step, point in enumerate(curve):
        mine = data[step * passes : (step + 1) * passes]
        x, y = torch.cat([b[0] for b in mine]), torch.cat([b[1] for b in mine])
        assert point["loss"] == pytest.approx((w * x - y).square().mean().item(), rel=1e-6)
        w -= 0.1 * (2 * (w * x - y) * x).mean().item()
    assert model.w.item() == pytest.approx(w)
    assert [(p["step"], p["steps"]) for p in curve] == [(n + 1, steps) for n in range(steps)]


@settings(max_examples=5)
@given(st.integers(1, 6))
def test_a_run_in_two_parts_is_the_whole_run(cut: int) -> None:
    whole, optimizer = tiny_model()
    expected = fit(whole, optimizer, tokens(), 6, RECIPE, passes=2)
    model, optimizer = tiny_model()
    parts: list[Point] = []
    stop = lambda: len(parts) == cut  # noqa: E731
    fit(model, optimizer, tokens(), 6, RECIPE, passes=2, callbacks=(parts.append,), stop=stop)
    parts += fit(model, optimizer, tokens(2 * cut), 6, RECIPE, passes=2, first_step=cut)
    assert parts == expected
    for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_recipe_is_the_schedule_that_it_describes() -> None:
    made = {}
    for name, schedule in (
        ("recipe", RECIPE),
        ("callable", lambda o, step, steps: apply_schedules(o, RECIPE, step, steps)),
        ("none", None),
    ):
        model, optimizer = tiny_model()
        made[name] = fit(model, optimizer, tokens(), 8, schedule)
    assert made["recipe"] == made["callable"] != made["none"]


def test_callbacks_come_in_order_and_what_they_return_joins_the_curve() -> None:
    seen: list[Any] = []

    def schedule(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        seen.append(("rates", step, steps, model.w.grad is not None))

    def measure(point: Point) -> dict[str, float]:
        seen.append(("measure", point["step"], model.w.grad is not None))
        return {"val_bpb": 1 / point["step"]}

    model, optimizer = learner()
    log = lambda point: seen.append(("log", point["step"], point.get("val_bpb")))  # noqa: E731
    curve = fit(model, optimizer, rows(5), 5, schedule, callbacks=(every(2, measure), log))
    assert seen[:5] == [
        ("rates", 0, 5, True),
        ("log", 1, None),
        ("rates", 1, 5, True),
        ("measure", 2, False),
        ("log", 2, 0.5),
    ]
    assert {p["step"]: p["val_bpb"] for p in curve if "val_bpb" in p} == {
        2: 1 / 2,
        4: 1 / 4,
        5: 0.2,
    }


@given(st.integers(1, 60), st.integers(-1, 70))
def test_due_is_every_so_many_steps_and_the_last(steps: int, number: int) -> None:
    found = {step for step in range(1, steps + 1) if due(step, steps, number)}
    multiples = set(range(number, steps + 1, number)) if number > 0 else set()
    assert found == (multiples | {steps} if number >= 0 else set())


def test_a_stop_ends_the_run_after_its_step() -> None:
    model, optimizer = learner()
    data = iter(rows(9))
    assert len(fit(model, optimizer, data, 9, None, stop=lambda: model.w.item() != 0)) == 1
    assert len(list(data)) == 8, "it reads no batch that it does not use"


def test_batches_that_end_too_early_are_told_and_nothing_half_is_left() -> None:
    model, optimizer = learner()
    with pytest.raises(UserError, match="ended after 2 of 9 steps; give more text"):
        fit(model, optimizer, rows(5), 9, None, passes=2)
    assert model.w.grad is None


def test_a_recipe_does_not_schedule_an_optimizer_that_it_does_not_know() -> None:
    with pytest.raises(UserError, match="give a schedule of your own, or None"):
        fit(*learner(), rows(1), 1, RECIPE)


def test_a_step_without_a_pass_is_refused() -> None:
    with pytest.raises(UserError, match="passes is 0"):
        fit(*learner(), rows(1), 1, None, passes=0)
