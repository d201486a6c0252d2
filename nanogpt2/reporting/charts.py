"""Line charts as inline SVG: no script, no network, colours from CSS so that they follow the theme.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; a second line is dashed
besides, so that colour is never the only difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 16, 44
MAX_POINTS = 600

STYLE = """
.chart { font: 12px system-ui, sans-serif; width: 100%; height: auto; }
.chart text { fill: var(--soft); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .raw { stroke-width: 1; opacity: .35; }
.chart .c0 { stroke: var(--c0); } .chart .c1 { stroke: var(--c1); stroke-dasharray: 7 4; }
.chart .dot { fill: var(--c0); }
.chart text.t0 { fill: var(--c0); } .chart text.t1 { fill: var(--c1); }
"""
LIGHT = (
    "--paper:#ffffff; --ink:#1b1f24; --soft:#57606a; --line:#d8dee4; --c0:#0072b2; --c1:#b8480b;"
)
DARK = "--paper:#14171b; --ink:#e6e8eb; --soft:#a3acb6; --line:#31373e; --c0:#56b4e9; --c1:#f0a35e;"

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve: a name for the legend and its points in order of x."""

    name: str
    points: Sequence[Point]
    raw: bool = False
    """draw it thin and pale, as the noise behind a smoothed curve"""


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


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about ``count``."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: 12,000 as 12k, without noise digits."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Plane:
    """Where a point of the data lies on the paper."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, series: Sequence[Series]) -> _Plane:
        """Room for all curves, of pale ones for the middle 96%: spikes do not set the scale."""
        xs = [x for s in series for x, _ in s.points]
        ys = []
        for s in series:
            values = sorted(y for _, y in s.points)
            spikes = len(values) // 50 if s.raw else 0
            ys += values[spikes : len(values) - spikes]
        space = (max(ys) - min(ys)) * 0.08 or abs(max(ys)) * 0.1 or 1.0
        low = min(ys) - space
        if min(ys) >= 0:
            low = max(0.0, low)
        return cls(min(xs), max(max(xs), min(xs) + 1e-9), low, max(ys) + space)

    def place(self, x: float, y: float) -> Point:
        """Right and down of the upper left corner, in units of the view box."""
        y = min(max(y, self.y_low), self.y_high)
        right = (x - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)
        down = (self.y_high - y) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + right, 1), round(TOP + down, 1)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    identity: str,
    alone: bool = False,
) -> Markup:
    """An ``<svg>`` of the curves; not finite points are left out, and so is an empty chart.

    Args:
        alt: what the chart shows, in a sentence, for those who cannot see it.
        identity: unique within the page; ids of the title and the description start with it.
        alone: bring style and background along, for an SVG file of its own.
    """
    drawn = [
        Series(s.name, thin([p for p in s.points if math.isfinite(p[1])]), s.raw) for s in series
    ]
    drawn = [s for s in drawn if s.points]
    firm = [s for s in drawn if not s.raw]
    if not firm:
        return Markup("")
    plane = _Plane.around(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-labelledby="{identity}-t {identity}-d">',
        f'<title id="{identity}-t">{escape(title)}</title>'
        f'<desc id="{identity}-d">{escape(alt)}</desc>',
    ]
    if alone:
        dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {DARK} }} }}"
        parts.append(f"<style>svg {{ {LIGHT} }} {dark} {STYLE}</style>")
        parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="var(--paper)"/>')
    parts += _axes(plane, x_label, y_label)
    for s in drawn:
        colour = firm.index(s) if s in firm else 0
        parts.append(_curve(s, [plane.place(x, y) for x, y in s.points], colour))
    if len(firm) > 1:
        parts += [
            f'<text class="t{row}" x="{WIDTH - RIGHT - 4}" y="{TOP + 14 + 16 * row}" '
            f'text-anchor="end">{escape(s.name)}</text>'
            for row, s in enumerate(firm)
        ]
    return Markup("\n".join([*parts, "</svg>"]))


def _axes(plane: _Plane, x_label: str, y_label: str) -> list[str]:
    parts = []
    for y in ticks(plane.y_low, plane.y_high):
        _, down = plane.place(plane.x_low, y)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}"/>'
            f'<text x="{LEFT - 8}" y="{down + 4}" text-anchor="end">{short(y)}</text>'
        )
    for x in ticks(plane.x_low, plane.x_high, 6):
        right, _ = plane.place(x, plane.y_low)
        parts.append(
            f'<text x="{right}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(x)}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts


def _curve(series: Series, places: list[Point], colour: int) -> str:
    if len(places) == 1:
        return f'<circle class="dot" cx="{places[0][0]}" cy="{places[0][1]}" r="4"/>'
    raw = " raw" if series.raw else ""
    path = " ".join(f"{x:g},{y:g}" for x, y in places)
    return f'<polyline class="curve c{colour}{raw}" points="{path}"/>'
