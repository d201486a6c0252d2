"""A few hundred of the damaged files that ``python -m benchmarks.fuzz`` feeds to every reader."""

from __future__ import annotations

from benchmarks.fuzz import READERS, measure


def test_no_reader_crashes_or_writes_outside_its_folder():
    figures = measure(inputs=400, seed=1)
    assert not figures.crashes, figures.crashes[0]
    assert not figures.outside
    for kind in READERS:
        assert figures.outcomes[kind, "refused"] > 10, "the damage is real"
    assert sum(figures.outcomes.values()) == 400
