"""Colours are measured (WCAG contrast, simulated colour blindness); figures follow the theme."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from nanogpt2 import lab
from nanogpt2.errors import UserError
from nanogpt2.lab.page import STYLE
from nanogpt2.reporting.figures import COLOURS

DECLARED = re.findall(r"--ng-c\d: (#\w{6})", STYLE)
DARK_COLOURS = tuple(DECLARED[len(COLOURS) :])

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.052]]
)


def linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lab_space(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb, 1e-9, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    "palette, paper", [(COLOURS, "#ffffff"), (DARK_COLOURS, "#14181e")], ids=["light", "dark"]
)
def test_lines_stand_out_from_the_paper(palette: tuple[str, ...], paper: str) -> None:
    assert min(contrast(colour, paper) for colour in palette) >= 3.0


@pytest.mark.parametrize("palette", [COLOURS, DARK_COLOURS], ids=["light", "dark"])
@pytest.mark.parametrize("eye", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deut", "prot"])
def test_the_first_three_colours_differ_for_every_eye(
    palette: tuple[str, ...], eye: np.ndarray
) -> None:
    seen = [lab_space(np.clip(eye @ linear(colour), 0, 1)) for colour in palette[:3]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


def test_the_page_declares_both_palettes() -> None:
    assert tuple(DECLARED[: len(COLOURS)]) == COLOURS and len(DARK_COLOURS) == len(COLOURS)


def test_a_figure_takes_its_ink_and_colours_from_the_page() -> None:
    html = lab.lines([0, 1, 2], {"a": [1, 2, 3], "b": [3, 2, 1]}, alt="two lines that cross").html
    drawing = re.search(r"<svg.*</svg>", html, re.S)
    assert drawing
    root = ElementTree.fromstring(drawing.group())
    assert root.get("role") == "img" and root.get("aria-label") == "two lines that cross"
    assert "currentColor" in html and "var(--ng-c0)" in html and "var(--ng-c1)" in html
    # no colour is left that a theme could not change
    assert not re.search(r"(stroke|fill): #", drawing.group())


def test_ids_are_unique_over_two_equal_figures() -> None:
    pages = [lab.lines([0, 1], {"a": [0, 1]}, alt="a line").html for _ in range(2)]
    ids = [re.findall(r' id="([^"]+)"', page) for page in pages]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for page, own in zip(pages, ids, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(own)


def test_style_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    with lab.plotting():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
    assert dict(matplotlib.rcParams) == before


def test_alt_text_is_owed_and_escaped() -> None:
    with lab.plotting() as (fig, _), pytest.raises(UserError, match="alt text"):
        lab.show(fig, " ")
    assert 'aria-label="a &lt; b &amp; &quot;c&quot;"' in lab.show(fig, 'a < b & "c"').html


def test_small_numbers_on_an_axis_keep_their_digits() -> None:
    page = lab.lines([0, 1], {"small": [0.0002, 0.0004]}, alt="a line").html
    assert "0.0002" in page or "0.00020" in page
