"""A few hundred of the damaged files that ``python -m tests.drills.fuzz`` feeds to every reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.drills.fuzz import READERS, Figures, guarded, measure

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="watches writes as Linux tells them"
)


def test_no_reader_crashes_or_writes_outside_its_folder():
    figures = measure(inputs=300, seed=1)
    assert not figures.crashes, figures.crashes[0]
    assert not figures.outside
    for kind in READERS:
        assert figures.outcomes[kind, "refused"] > 5, "the damage is real"
    assert sum(figures.outcomes.values()) == 300


def test_what_is_written_outside_is_noted(tmp_path: Path):
    figures, inside = Figures(), tmp_path / "inside"
    inside.mkdir()
    with guarded(inside, figures):
        (inside / "a").write_text("fine")
        (inside / "a").read_text()
        (inside / ".." / "b").write_text("outside")
        (inside / "a").rename(tmp_path / "c")
        (tmp_path / "b").read_text()
    (tmp_path / "d").mkdir()
    assert figures.outside == [f"open {tmp_path / 'b'}", f"os.rename {tmp_path / 'c'}"]
