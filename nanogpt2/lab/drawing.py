"""Figures as parts of a page; small drawings by hand: words and lines in the page's own ink."""

from __future__ import annotations

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


def drawing(body: str, height: float, width: float = WIDTH) -> str:
    """``body`` as an SVG element; a frame for ``explore``, with alt text beside it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
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


def box(x: float, y: float, width: float, text: str, height: float = 40) -> str:
    """A rounded box around (x, y) with ``text`` in its middle."""
    frame = rect(x - width / 2, y - height / 2, width, height, rx=6, stroke="currentColor")
    return frame + words(x, y + 6, text, "middle")


def joint(x: float, y: float, sign: str, r: float = 14) -> str:
    """Where two ways meet: a ``sign`` in a circle around (x, y)."""
    return circle(x, y, r) + words(x, y + 6, sign, "middle")
