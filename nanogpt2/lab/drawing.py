"""Small drawings by hand: boxes, words and lines in the page's own ink, as one SVG."""

from __future__ import annotations

from html import escape

from nanogpt2.lab.page import Html, inline, part

WIDTH = 480
"""of every drawing, in its own units: it fits a phone without shrinking its words too far"""


def drawing(body: str, height: float, width: float = WIDTH) -> str:
    """``body`` as an SVG element; a frame for ``explore``, with alt text beside it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def picture(body: str, height: float, alt: str, caption: str = "") -> Html:
    """``body`` as a figure of the page. ``alt`` says what it shows, ``caption`` why to look."""
    image = f'<div role="img" aria-label="{escape(alt, quote=True)}">{drawing(body, height)}</div>'
    told = f"<figcaption>{inline(caption)}</figcaption>" if caption else ""
    return Html(part("figure", f"<figure>{image}{told}</figure>"), f"[figure: {alt}]")


def words(x: float, y: float, text: str, anchor: str = "start", size: int = 16) -> str:
    """A line of text, its baseline at y; ``anchor`` is start, middle or end."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def box(x: float, y: float, width: float, text: str, height: float = 40) -> str:
    """A rounded box around (x, y) with ``text`` in its middle."""
    return (
        f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" '
        f'height="{height:g}" rx="6" fill="none" stroke="currentColor"/>'
        f"{words(x, y + 6, text, 'middle')}"
    )
