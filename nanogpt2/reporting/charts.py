"""The curves of a run as inline SVG: no script, no network, in the book's style.

A noisy curve is drawn twice, pale as it was measured and firm as its average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from nanogpt2.reporting.figures import COLOURS, DASHES, INK, legend, plotting, svg

MAX_POINTS = 600
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve: a name for the legend and its points in order of x."""

    name: str
    points: Sequence[Point]
    raw: bool = False
    """draw it thin and pale, as the noise behind the curve of its name, or else the first"""


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most about ``limit`` points: of each stretch the lowest and the highest, and both ends."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / (limit // 2))
    kept = [points[0]]
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        extremes = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(extremes)
    return sorted({*kept, points[-1]})


def smooth(points: Sequence[Point], span: float | None = None) -> list[Point]:
    """Exponential moving average over about ``span`` points (a hundredth of them by default).

    Corrected for its start, as Adam's moments are, so that the first value is the first point's.
    """
    beta = 1 - 1 / max(1.0, len(points) / 100 if span is None else span)
    average, weight, smoothed = 0.0, 0.0, []
    for x, y in points:
        average = beta * average + (1 - beta) * y
        weight = beta * weight + (1 - beta)
        smoothed.append((x, average / weight))
    return smoothed


def short(value: float) -> str:
    """A number for an axis: 12,000 as 12k, without noise digits."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def literal(name: str) -> str:
    """A label that is drawn letter by letter: of a name Matplotlib makes a formula between dollars,
    and leaves it out of the legend where it begins with an underscore."""
    hidden = name.startswith("_")
    return "\N{WORD JOINER}" * hidden + name.replace("$", r"\$")


def room_for(series: Sequence[Series]) -> tuple[float, float]:
    """Lowest and highest y; of pale curves the middle 96%: spikes do not set the scale."""
    ys: list[float] = []
    for s in series:
        values = sorted(y for _, y in s.points)
        spikes = len(values) // 50 if s.raw else 0
        ys += values[spikes : len(values) - spikes]
    space = (max(ys) - min(ys)) * 0.08 or abs(max(ys)) * 0.1 or 1.0
    low = min(ys) - space
    return max(0.0, low) if min(ys) >= 0 else low, max(ys) + space


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    identity: str,
    theme: str = "",
) -> Markup:
    """An ``<svg>`` of the curves; not finite points are left out, and so is an empty chart.

    Args:
        alt: what the chart shows, in a sentence, for those who cannot see it.
        identity: unique within the page; the chart's ids start with it.
        theme: CSS to bring along, for an SVG file of its own.
    """
    drawn = [
        Series(s.name, thin([p for p in s.points if math.isfinite(p[1])]), s.raw) for s in series
    ]
    drawn = [s for s in drawn if s.points]
    firm = [s for s in drawn if not s.raw]
    if not firm:
        return Markup("")
    names = [s.name for s in series if not s.raw]  # also of a curve without points: colours stay
    with plotting(6.4, 2.8) as (fig, axes):
        for s in drawn:
            place = names.index(s.name) if s.name in names else 0
            look: dict[str, Any] = {"color": COLOURS[place], "linestyle": DASHES[place]}
            look |= {"linewidth": 1.0, "alpha": 0.35} if s.raw else {"label": literal(s.name)}
            dot = "o" if len(s.points) == 1 else ""
            axes.plot(*zip(*s.points, strict=True), marker=dot, **look)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=room_for(drawn))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: short(value))
        if len(firm) > 1:
            legend(fig)
    head = f"<title>{escape(title)}</title>" + (f"<style>{theme}</style>" if theme else "")
    before, after = svg(fig, alt, identity).split(">", 1)
    return Markup(f"{before}>{head}{after}")


def core_chart(core: Mapping[str, Any]) -> Markup:
    """An ``<svg>`` of centered accuracy per task as bars; whiskers are one standard error.

    ``core`` is what ``CoreResult.to_dict`` gives; of its published scores the largest size of GPT-2
    is marked by diamonds.
    """
    from nanogpt2.evals.core.statistics import baseline_of, centered

    tasks, published = core["tasks"], core.get("published")
    labels = list(tasks)[::-1]
    values = [tasks[label]["centered"] for label in labels]
    chance = [  # what was written before kept no baseline
        baseline_of(task["accuracy"], task["centered"]) if known is None else known
        for task, known in ((tasks[label], tasks[label].get("baseline")) for label in labels)
    ]
    errors = [  # once centered, an accuracy's error is wider
        tasks[label].get("standard_error", 0.0) / (1 - b)
        for label, b in zip(labels, chance, strict=True)
    ]
    rows = range(len(labels))
    with plotting(7.2, 0.8 + 0.27 * len(labels)) as (fig, axes):
        axes.barh(rows, values, xerr=errors, ecolor=INK, label="this model")
        if published:
            size, scores = list(published.items())[-1]
            known = [row for row in rows if labels[row] in scores]
            marks = [centered(scores[labels[row]], chance[row]) for row in known]
            axes.plot(marks, known, "D", color=COLOURS[1], ms=4, label=f"GPT-2 {size}")
            legend(fig)
        axes.set_yticks(rows, labels)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linestyle="-", lw=0.8)
        axes.set_xlabel("centered accuracy: 0 is guessing, 1 is all right")
    best, worst = (pick(labels, key=lambda k: tasks[k]["centered"]) for pick in (max, min))
    alt = (
        f"Centered accuracy of {len(labels)} tasks as bars, from "
        f"{tasks[worst]['centered']:+.2f} ({worst}) to {tasks[best]['centered']:+.2f} ({best})"
    )
    return Markup(svg(fig, alt, "chart-core"))
