"""Numbers that say where they are from: live, recorded or reported."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Literal

from markupsafe import Markup

from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html, inline, part, plain, rendered, script
from nanogpt2.lab.records import Record

SENTENCE = 24
"""characters from which on a cell of a table is text rather than a number or a name"""
Badge = Literal["live", "recorded", "reported"]
MEANING = {
    "live": "computed by this page",
    "recorded": "read from a file under book/results/",
    "reported": "measured by someone else",
}


def claim(
    text: str,
    value: Any,
    badge: Badge = "live",
    source: Record | str | None = None,
    unit: str = "",
    form: str = "",
) -> Html:
    """``text: value unit`` with a badge.

    Args:
        text: what the number is.
        value: number (3 significant digits, thousands separated) or ready text.
        badge: live, recorded (``source`` is the ``Record``) or reported (``source`` names who).
        unit: shown after the number.
        form: a format specification, such as ".4f" or ",".

    Raises:
        UserError: an unknown badge, or no source where one is owed.
    """
    shown = written(value, form) + (f" {unit}" if unit else "")
    mark = badge_html(badge, source)
    body = f"<div>{inline(text)}: <strong>{escape(shown)}</strong> {mark}</div>"
    return Html(part("claim", body), f"{plain(text)}: {shown} [{_origin(badge, source)}]")


def claims(*items: Html) -> Html:
    """Several claims below each other, as one output."""
    return Html("".join(i.html for i in items), "\n".join(i.text for i in items))


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Any]],
    badge: Badge | Sequence[Badge | None] = "live",
    source: Record | str | None = None,
    caption: str = "",
    form: str = "",
    sortable: bool = False,
) -> Html:
    """Numbers in rows with one badge for all (in the caption), or one a column (in its header).

    Args:
        headers: one for each column; the first column is text.
        badge: a badge, or one for each column with None where a column holds no measurement.
        source: of the recorded or reported numbers.
        sortable: whether a press on a header orders the rows by it, another turns them round.
    """
    marks: list[Badge | None] = [None] * len(headers)
    if not isinstance(badge, str):
        marks = list(badge)
    if len(marks) != len(headers) or any(len(row) != len(headers) for row in rows):
        raise UserError(f"the table has {len(headers)} headers; give every row and badge as many")
    cells = [[str(row[0]), *(written(cell, form) for cell in row[1:])] for row in rows]
    # sentences are read from the left, numbers compared from the right
    long = [any(len(str(row[i])) > SENTENCE for row in rows) for i in range(len(headers))]
    badges = [_marked(mark, source) for mark in marks]
    body = rendered(
        "table",
        caption=caption,
        badge=_marked(badge if isinstance(badge, str) else None, source),
        columns=list(zip(headers, badges, [False, *long[1:]], strict=True)),
        rows=cells,
        sortable=sortable,
    )
    html = part("table", body, script("sort") if sortable else "")
    return Html(html, "\n".join(" | ".join(row) for row in [headers, *cells]))


def _marked(badge: Badge | None, source: Record | str | None) -> Markup:
    """The badge after a blank; nothing where there is none."""
    return Markup(f" {badge_html(badge, source)}" if badge else "")


def badge_html(badge: Badge, source: Record | str | None = None) -> str:
    """The badge alone."""
    origin = escape(_origin(badge, source), quote=True)
    named = f": {escape(str(source))}" if badge == "reported" else ""
    return f'<span class="ng-badge ng-{badge}" title="{origin}">{badge}{named}</span>'


def written(value: Any, form: str = "") -> str:
    """A value as the book writes it."""
    if isinstance(value, str):
        return value
    if form:
        return format(value, form)
    if isinstance(value, int):
        return f"{value:,}"
    number = float(value)
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e7 else f"{number:.3g}"


def _origin(badge: Badge, source: Record | str | None) -> str:
    if badge not in MEANING:
        raise UserError(f"unknown badge {badge!r}; choose one of {', '.join(MEANING)}")
    if badge == "live":
        return f"live: {MEANING[badge]}"
    if badge == "recorded" and not isinstance(source, Record):
        raise UserError("a recorded number needs source=recorded(NAME), the run it was read from")
    if badge == "reported" and not (isinstance(source, str) and source):
        raise UserError("a reported number needs source=, who reported it and where")
    if isinstance(source, Record):
        return f"recorded: {source.name}.json, {source.device}, torch {source.torch}"
    return f"reported: {source}"
