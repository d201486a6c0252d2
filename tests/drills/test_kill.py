"""Two kills on an ordinary day; ``python -m tests.drills.kill --kills 100`` on a quiet one."""

from __future__ import annotations

from tests.drills.kill import measure


def test_killed_runs_end_as_the_unbroken_one() -> None:
    figures = measure(kills=2, seed=3)
    assert figures.kills == 2 and figures.runs >= 1
    assert figures.different == []
