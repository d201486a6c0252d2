"""One plot style for book and reports: the page's own ink, and colours that all can tell apart.

Figures become SVG inside the page, so their text is text, their ink is ``currentColor`` and their
colours are CSS variables (``--ng-c0`` to ``--ng-c5``) that change with the theme. The light palette
keeps a contrast of at least 3 to 1 on white and the dark one on near-black (WCAG 2.1, 1.4.11);
lines differ by dashes too.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from nanogpt2.errors import UserError

INK = "#010203"
"""stands for the page's own text colour until the figure is written"""
COLOURS = ("#0072b2", "#c4540a", "#00805d", "#a84a82", "#8a6a00", "#5b6570")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), "-")
SEQUENTIAL, DIVERGING = "cividis", "PuOr"


def style() -> AbstractContextManager[None]:
    """The book's style for one ``with`` block; outside it nothing has changed."""
    cycle = cycler(color=COLOURS, linestyle=DASHES)
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    look = {
        **{name: INK for name in inks},
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "figure.constrained_layout.use": True,
        "axes.prop_cycle": cycle,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 11,
        "font.size": 11,
        "grid.color": INK,
        "grid.alpha": 0.14,
        "grid.linestyle": "-",
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "legend.handlelength": 2.6,
        "lines.linewidth": 1.9,
        "image.cmap": SEQUENTIAL,
        "svg.fonttype": "none",
        "mathtext.default": "regular",
    }
    return matplotlib.rc_context(look)  # type: ignore[arg-type]


@contextmanager
def plotting(
    width: float = 5.6, height: float = 2.9, rows: int = 1
) -> Iterator[tuple[Figure, Any]]:
    """A figure, in inches, and its axes, with the book's style for all that is drawn in the block.

    Several ``rows`` of axes lie below each other and share their x.
    """
    with style():
        fig = Figure(figsize=(width, height))
        yield fig, fig.subplots(rows, sharex=True)


def legend(fig: Figure, ncols: int = 3) -> None:
    """The names of what was drawn, above the axes."""
    fig.legend(loc="outside upper left", ncols=ncols)


def svg(fig: Figure, alt: str, name: str = "") -> str:
    """``fig`` as an ``<svg>`` element that follows the theme and says ``alt`` to those who listen.

    Its ids begin with ``name``, which must be its own in the page; without one it is random.
    Raises UserError without alt text: a picture nobody describes is closed to some readers.
    """
    if not alt.strip():
        raise UserError("this figure has no alt text; say in a sentence what it shows")
    buffer = io.StringIO()
    with style():
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r">\s+<", "><", text)
    # coordinates need no more than two digits; words and labels stay as they are
    text = re.sub(r"<[^>]+>", lambda m: re.sub(r"(\d+\.\d\d)\d+", r"\1", m[0]), text)
    text = _themed(_renamed(text, name or fresh_name()))
    label = f'<svg role="img" aria-label="{escape(alt, quote=True)}"'
    return text.replace("<svg", label, 1).strip()


def fresh_name() -> str:
    """A name no other part of the page has: radio groups and SVG ids need one."""
    return "ng" + secrets.token_hex(5)


def _renamed(text: str, name: str) -> str:
    """Ids made unique within the page, references with them; unused ids dropped."""
    used = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    new = {old: f"{name}-{number}" for number, old in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", text)
    return re.sub(r'(url\(#|href="#)([^)"]+)', lambda m: m[1] + new[m[2]], text)


def _themed(text: str) -> str:
    text = text.replace(INK, "currentColor")
    for index, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--ng-c{index})")
    # the page's font: newer matplotlib writes font-family, older the short form
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    return re.sub(r"(font: [^;\"']*)'[^;\"]*", r"\1system-ui, sans-serif", text)
