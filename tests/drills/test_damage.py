"""Four damaged runs, one of them on a full disk; ``python -m tests.drills.damage`` has more."""

from __future__ import annotations

from tests.drills.damage import measure


def test_damaged_runs_end_as_the_unbroken_one() -> None:
    figures = measure(rounds=4, seed=1)
    assert figures.rounds["full disk"] == 1 and sum(figures.rounds.values()) >= 4
    assert figures.passed_over + figures.harmless >= 3
    assert figures.different == []
