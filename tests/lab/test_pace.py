"""Live runs shrink, and budgets grow, on slow machines: by a rule, told a speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nanogpt2.lab import pace
from scripts.chapters import keep_budget


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    pace.live_steps.cache_clear()
    yield
    pace.live_steps.cache_clear()


@pytest.mark.parametrize(("speed", "slow", "steps"), [(100, 1, 100), (6, 10 / 6, 100), (2, 5, 50)])
def test_a_slow_machine_makes_half_the_steps_in_more_time(
    monkeypatch: pytest.MonkeyPatch, speed: float, slow: float, steps: int
) -> None:
    monkeypatch.setattr(pace, "steps_per_second", lambda: speed)
    assert pace.slowness() == pytest.approx(slow)
    assert pace.live_steps("ci") == steps
    assert pace.live_steps("laptop") == 1000 and pace.live_steps("h100") == 5000


def test_speed_is_measured_by_steps_of_the_small_model() -> None:
    assert 0.01 < pace.steps_per_second(steps=2) < 10_000


def test_over_budget_fails_where_budgets_are_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: list[str] = []
    monkeypatch.delenv("CI", raising=False)
    keep_budget(failures, "a chapter", 200.0, 180.0)
    assert not failures and "took 200 s" in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    keep_budget(failures, "a chapter", 180.0, 180.0)
    assert not failures
    keep_budget(failures, "a chapter", 200.0, 180.0)
    assert len(failures) == 1
