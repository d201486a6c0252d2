"""The kit of drawings: arrows that end where they should, cells with their numbers, alt text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.errors import UserError
from nanogpt2.lab.drawing import arrow, cells, drawing, opening

PLACE = st.integers(0, 480)


@given(PLACE, PLACE, st.integers(-200, 200), st.integers(-200, 200))
def test_an_arrows_head_lies_behind_its_tip_on_both_sides(x: int, y: int, dx: int, dy: int) -> None:
    if math.hypot(dx, dy) < 20:
        return
    root = ElementTree.fromstring(drawing(arrow((x, y), (x + dx, y + dy)), 100))
    line, head = root
    (left, tip, right) = [
        tuple(map(float, point.split()))
        for point in re.findall(r"-?[\d.]+ -?[\d.]+", head.get("d"))
    ]
    assert line.get("d", "").endswith(f"{x + dx:.1f} {y + dy:.1f}") and tip == (x + dx, y + dy)
    for side in (left, right):
        along = (tip[0] - side[0]) * dx + (tip[1] - side[1]) * dy
        assert along / math.hypot(dx, dy) == pytest.approx(8, abs=0.2)
    middle = ((left[0] + right[0]) / 2 - tip[0], (left[1] + right[1]) / 2 - tip[1])
    assert abs(middle[0] * dy - middle[1] * dx) / math.hypot(dx, dy) < 0.2


def test_cells_hold_their_numbers_in_order() -> None:
    root = ElementTree.fromstring(drawing(cells(0, 0, [[1.0, -0.333], ["", 5]]), 60))
    rects = [r for r in root if r.tag.endswith("rect")]
    texts = [t for t in root if t.tag.endswith("text")]
    assert [t.text for t in texts if t.text] == ["1", "-0.33", "5"]
    assert len(rects) == 4 and {r.get("y") for r in rects} == {"0", "30"}


def test_an_opening_is_large_and_says_what_it_shows() -> None:
    html = opening(arrow((0, 0), (10, 0)), 20, "an arrow").html
    assert 'width="640"' in html and 'aria-label="an arrow"' in html
    with pytest.raises(UserError, match="alt text"):
        opening("", 20, "")
