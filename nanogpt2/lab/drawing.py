"""Figures as parts of a page; small drawings by hand: words and lines in the page's own ink."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html, inline, part
from nanogpt2.reporting.figures import svg

WIDTH = 480
"""of every drawing, in its own units: it fits a phone without shrinking its words too far"""
PAINT = tuple(f"var(--ng-c{i})" for i in range(6))
"""the page's colours, as ``COLOURS`` are a figure's"""
PAPER = "var(--pst-color-background,#fff)"


def drawing(parts: Iterable[str], height: float, shown: float = WIDTH) -> str:
    """``parts`` as an SVG element, ``shown`` pixels wide where there is room; a frame for
    ``explore``, with alt text beside it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" width="{shown:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def image(drawn: Figure | str, alt: str) -> str:
    """A figure, or ready HTML, as an image that says ``alt`` to those who listen.

    Raises UserError without alt text.
    """
    if isinstance(drawn, Figure):
        return svg(drawn, alt)
    if not alt.strip():
        raise UserError("this picture has no alt text; say in a sentence what it shows")
    return f'<div role="img" aria-label="{escape(alt, quote=True)}">{drawn}</div>'


def show(drawn: Figure | str, alt: str, caption: str = "") -> Html:
    """A figure as part of the page. ``alt`` says what it shows, ``caption`` why to look."""
    told = f"<figcaption>{inline(caption)}</figcaption>" if caption else ""
    return Html(part("figure", f"<figure>{image(drawn, alt)}{told}</figure>"), f"[figure: {alt}]")


def element(kind: str, text: str = "", **attributes: Any) -> str:
    """``<kind ...>text</kind>``: numbers with one digit, hyphens for underscores."""
    listed = "".join(
        f' {name.replace("_", "-")}="{value if isinstance(value, str) else f"{round(value, 1):g}"}"'
        for name, value in attributes.items()
    )
    return f"<{kind}{listed}>{escape(text)}</{kind}>" if text else f"<{kind}{listed}/>"


def words(x: float, y: float, text: str, anchor: str = "start", size: int = 16, **more: Any) -> str:
    """A line of text, its baseline at y; ``anchor`` is start, middle or end."""
    more = {"fill": "currentColor", **more}
    return element("text", text, x=x, y=y, text_anchor=anchor, font_size=size, **more)


def rect(x: float, y: float, width: float, height: float, fill: str = "none", **more: Any) -> str:
    """A rectangle from its upper left corner."""
    return element("rect", x=x, y=y, width=width, height=height, fill=fill, **more)


def circle(x: float, y: float, r: float, **more: Any) -> str:
    """A circle, empty unless ``fill`` is given."""
    more = {"fill": "none", "stroke": "currentColor", **more}
    return element("circle", cx=x, cy=y, r=r, **more)


def path(d: str, stroke: str = "currentColor", width: float = 1, **more: Any) -> str:
    """A line along ``d``, SVG's own words for it."""
    more = {"fill": "none", "stroke": stroke, "stroke_width": width, **more}
    return element("path", d=d, **more)


def box(x: float, y: float, width: float, text: str, below: str = "", fill: str = "none") -> str:
    """A rounded box around (x, y) with ``text`` in its middle; ``below`` it a shape, say."""
    height = 50 if below else 40
    frame = rect(
        x - width / 2, y - height / 2, width, height, fill,
        fill_opacity=".16", rx=6, stroke="currentColor",
    )  # fmt: skip
    if not below:
        return frame + words(x, y + 6, text, "middle")
    return frame + words(x, y - 3, text, "middle") + words(x, y + 17, below, "middle", 15)


def joint(x: float, y: float, sign: str, r: float = 14) -> str:
    """Where two ways meet: a ``sign`` in a circle around (x, y)."""
    return circle(x, y, r) + words(x, y + 6, sign, "middle")


def arrow(*points: tuple[float, float], colour: str = "currentColor", width: float = 2) -> str:
    """A way through ``points``, with a head at its end."""
    (x0, y0), (x, y) = points[-2:]
    long = math.hypot(x - x0, y - y0)
    dx, dy = 8 * (x - x0) / long, 8 * (y - y0) / long
    ends = [(x - dx - 0.6 * dy, y - dy + 0.6 * dx), (x, y), (x - dx + 0.6 * dy, y - dy - 0.6 * dx)]
    line, head = ("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in way) for way in (points, ends))
    return path(line, colour, width) + path(head + "Z", colour, fill=colour)


def cells(
    x: float, y: float, rows: Sequence[Sequence[float | str]], width: float = 44, fill: str = "none"
) -> str:
    """A matrix as cells with its numbers in them, from its upper left corner; rows are 30 high."""
    look = {"fill_opacity": ".16", "stroke": "currentColor", "stroke_opacity": ".5"}
    drawn = []
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            text = value if isinstance(value, str) else f"{round(value, 2):g}"
            drawn.append(rect(x + j * width, y + 30 * i, width, 30, fill, **look))
            drawn.append(words(x + (j + 0.5) * width, y + 30 * i + 21, text, "middle", 15))
    return "".join(drawn)


def opening(parts: Iterable[str], height: float, alt: str, caption: str = "") -> Html:
    """The large drawing that a chapter opens with: what flows where, with shapes and numbers."""
    return show(drawing(parts, height, shown=640), alt, caption)
