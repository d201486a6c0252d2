"""The welcome page: the fall of the price as reported, the path in minutes, the ladder's rungs."""

from __future__ import annotations

import re

import pytest

from nanogpt2 import reported
from scripts import ladder, rooms, welcome
from scripts.assemble import reading_minutes
from scripts.paths import chapters


def test_every_milestone_is_cheaper_than_the_one_before() -> None:
    dollars = [one.dollars for one in welcome.milestones()]
    assert dollars[0] == 43_008 and dollars == sorted(dollars, reverse=True)
    assert len(dollars) == 2 + len(reported.LEADERBOARD)
    assert dollars[2] == pytest.approx(reported.run1_dollars(), abs=0.1)


@pytest.mark.parametrize("one", welcome.milestones(), ids=lambda one: one.name)
def test_a_frame_says_what_it_points_at(one: welcome.Milestone) -> None:
    picture, alt = welcome.price_frame(one.name)
    assert one.told in alt and f"{one.dollars:,.0f} dollars" in alt
    assert picture.count("<svg") == 1
    fall = re.search(r"about ([\d,]+) times cheaper", alt)
    if one.name.startswith("GPT-2"):
        assert fall is None
    else:
        assert fall
        assert int(fall.group(1).replace(",", "")) == pytest.approx(43_008 / one.dollars, rel=0.05)


def test_the_figure_needs_no_kernel_and_no_network() -> None:
    figure = welcome.price_figure()
    assert figure.startswith("```{raw} html") and 'type="range"' in figure
    assert figure.count("<template>") == len(welcome.milestones())
    assert not re.search(r"(src|href)=\"https?:", figure)


def test_the_path_has_every_chapter_with_its_question() -> None:
    minutes = {path.stem: 10 + i for i, path in enumerate(chapters())}
    rows = welcome.path_table(rooms.read_rooms(), minutes).splitlines()[2:]
    assert len(rows) == len(minutes) + 1
    for row, path in zip(rows, chapters(), strict=False):
        number, link, question, count = (cell.strip() for cell in row.split("|")[1:-1])
        assert int(number) == int(path.stem[:2]) and path.stem in link
        assert question.endswith("?") and int(count) == minutes[path.stem]
    assert rows[-1].split("|")[-2].strip() == str(sum(minutes.values()))


def test_folded_code_takes_no_time_to_read() -> None:
    prose = {"cell_type": "markdown", "metadata": {}, "source": "word " * 600}
    code = {"cell_type": "code", "metadata": {}, "source": "x = 1\n" * 30}
    folded = {**code, "metadata": {"tags": ["hide-input"]}}
    assert reading_minutes([prose, folded]) == 3 and reading_minutes([prose, code, folded]) == 5


def test_every_rung_says_what_it_replaced() -> None:
    picture = ladder.ladder_svg([])
    assert picture.count(">was: ") == len(ladder.RUNGS)
    assert all(f">was: {rung.before}<" in picture for rung in ladder.RUNGS)
