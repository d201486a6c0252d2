"""Explorers: which frame a slider shows, what they refuse; the page itself is in test_browser."""

from __future__ import annotations

import re

import pytest

from nanogpt2.errors import UserError
from nanogpt2.lab.explore import MAX_BYTES, explore
from nanogpt2.reporting.figures import plotting


def words(**values: object) -> tuple[str, str]:
    return f"<p>{values}</p>", f"shows {values}"


def test_frames_come_in_the_order_the_sliders_count() -> None:
    html = explore(words, depth=[1, 2], width=[10, 20, 30]).html
    frames = re.findall(r"<template>.*?<p>(.*?)</p>", html)
    assert frames == [str({"depth": d, "width": w}) for d in (1, 2) for w in (10, 20, 30)]


def test_it_starts_where_it_is_told() -> None:
    html = explore(words, start={"width": 30}, depth=[1, 2], width=[10, 20, 30]).html
    stage = html.split('class="ng-stage"')[1].split("<template>")[0]
    assert str({"depth": 1, "width": 30}) in stage
    assert re.findall(r'max="(\d)" step="1" value="(\d)"', html) == [("1", "0"), ("2", "2")]


def test_every_frame_has_its_own_alt_text() -> None:
    html = explore(words, k=[1, 2, 3]).html
    alts = re.findall(r'<template><div role="img" aria-label="([^"]+)"', html)
    assert len(set(alts)) == len(alts) == 3


@pytest.mark.parametrize(
    "values, said",
    [
        ({}, "one to three parameters"),
        ({name: [1] for name in "abcd"}, "one to three parameters"),
        ({"a": []}, "no values for a"),
    ],
)
def test_it_refuses_what_it_cannot_show(values: dict[str, list[int]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        explore(words, **values)


def test_it_refuses_a_start_off_the_scale_and_a_silent_frame() -> None:
    with pytest.raises(UserError, match="cannot start"):
        explore(words, start={"a": 7}, a=[1, 2])
    with pytest.raises(UserError, match="alt text"), plotting() as (fig, _):
        explore(lambda a: (fig, ""), a=[1])


def test_it_refuses_a_heavy_page() -> None:
    with pytest.raises(UserError, match="fewer values"):
        explore(lambda a: ("x" * (MAX_BYTES // 2), "xs"), a=[1, 2, 3])


def test_the_live_form_turns_the_same_frames() -> None:
    pytest.importorskip("ipywidgets")
    box = explore(words, a=[1, 2], b=["x", "y"]).widget()
    first, second, view = box.children
    assert str({"a": 1, "b": "x"}) in view.value
    first.index, second.index = 1, 1
    assert str({"a": 2, "b": "y"}) in view.value


def test_a_page_executed_for_the_book_has_no_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOGPT2_LAB", "static")
    assert set(explore(words, a=[1])._repr_mimebundle_()) == {"text/html", "text/plain"}
