"""The planner against reality: the tables' arithmetic."""

from __future__ import annotations

import pytest

from nanogpt2.costs import record_mfu
from nanogpt2.reported import LEADERBOARD
from scripts import planned


def test_a_ratio_is_what_was_planned_over_what_was_measured() -> None:
    assert planned.compared(3.0, 2.0) == ["3", "2", "1.50"]
    one = {"GB planned": 1.1, "GB measured": 1.0, "s planned": 0.5, "s measured": 2.0}
    (row,) = planned.on_processor({"name": one})
    assert row == ["name", "1.1", "1", "1.10", "0.5", "2", "0.25"]


def test_a_record_is_planned_with_what_the_one_before_it_reached() -> None:
    rows = list(planned.of_records())
    assert [row[0] for row in rows] == list(LEADERBOARD)
    assert rows[0][1:3] == ["", ""], "there was none before the first"
    for before, (name, ahead, ratio, *known) in zip(LEADERBOARD, rows[1:], strict=False):
        hours = LEADERBOARD[name].hours
        wanted = hours * record_mfu(name) / record_mfu(before)
        assert float(ahead) == pytest.approx(wanted, abs=0.006)
        assert float(ratio) == pytest.approx(wanted / hours, abs=0.006)
        assert known[:2] == [f"{hours:.2f}"] * 2


def test_the_page_shows_every_run_that_is_recorded() -> None:
    text = planned.planner_part()
    runs = planned.recorded("benchmarks-planner").results["runs"]
    assert runs and all(f"| {name} |" in text for name in runs)
    assert text.count("| run1 d24, 16 x 2048 tokens, bf16 |") == 1
