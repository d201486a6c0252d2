"""Pictures of the chapter on Muon and the Polar Express."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanogpt2.depth import dial
from nanogpt2.lab.drawing import (
    PAINT,
    arrow,
    box,
    cells,
    circle,
    drawing,
    opening,
    path,
    rect,
    show,
    words,
)  # fmt: skip
from nanogpt2.lab.page import Html
from nanogpt2.optim.polar_express import COEFFICIENTS, polar_express
from nanogpt2.reporting.figures import COLOURS, INK, legend, plotting

Triples = Sequence[Sequence[float]]
SAFETY = 1.02
"""what divides x in the first four of the package's polynomials"""
JORDAN = ((3.4445, -4.775, 2.0315),) * 5
NEWTON_SCHULZ = ((15 / 8, -10 / 8, 3 / 8),) * 5


EXAMPLE = ((3.0, 0.0), (4.0, 5.0))
"""a gradient whose polar factor the chapter finds by hand"""


def flattened(caption: str = "") -> Html:
    """The chapter's idea: a gradient's directions stay, its lengths become one."""
    at = dial(24, "run1")
    g = torch.tensor(EXAMPLE, dtype=torch.float64)
    u, sizes, vt = torch.linalg.svd(g)
    step = u @ vt
    drawn = [
        words(56, 44, "gradient G", "middle"),
        cells(12, 56, g.tolist(), fill=PAINT[1]),
        arrow((106, 86), (150, 86)),
        words(240, 18, "its two directions,", "middle"),
        words(240, 38, "as long as", "middle"),
        arrow((330, 86), (374, 86)),
        words(424, 44, "step U Vᵀ", "middle"),
        cells(380, 56, step.tolist(), fill=PAINT[0]),
    ]
    for row, size in enumerate(sizes.tolist()):
        y = 52 + 34 * row
        drawn += [rect(160, y, 17 * size, 24, PAINT[1], fill_opacity=".5", stroke=PAINT[1]),
                  rect(160, y, 17, 24, PAINT[0]),
                  words(166 + 17 * size, y + 18, f"{size:.2f} → 1", size=15)]  # fmt: skip
    ways = (
        ("gradients of a batch", f"({at.n_embd:,}, {at.n_embd:,})"),
        ("momentum: their mean", "about 20 gradients"),
        ("Polar Express", "5 polynomials, products alone"),
        ("NorMuon: rows evened", "the whole as long as before"),
        ("weights moved, by rate", "and decayed, with caution"),
    )
    for row, (name, below) in enumerate(ways):
        y = 168 + 74 * row
        drawn.append(box(150, y, 250, name, below, PAINT[0] if row == 2 else "none"))
        if row:
            drawn.append(arrow((150, y - 49), (150, y - 25)))
    drawn += [
        path("M288 168C330 168 330 300 288 300", opacity=".5"),
        words(330, 212, "lengths uneven:", size=15),
        words(330, 232, "a few directions", size=15),
        words(330, 252, "hold nearly all", size=15),
        path("M288 332C330 332 330 464 288 464", opacity=".5"),
        words(330, 384, "lengths even:", size=15),
        words(330, 404, "all directions", size=15),
        words(330, 424, "move alike", size=15),
    ]
    alt = (
        f"The matrix 3, 0; 4, 5 has two directions of lengths {sizes[0]:.2f} and {sizes[1]:.2f}. "
        f"Both lengths become 1, which gives {step[0, 0]:.2f}, {step[0, 1]:.2f}; "
        f"{step[1, 0]:.2f}, {step[1, 1]:.2f}. Below, a step from top to bottom: gradients, "
        "momentum, Polar Express, NorMuon, weights."
    )
    return opening(drawn, 496, alt, caption)


def ellipse_frame(stretch: float, steps: int) -> tuple[str, str]:
    """The image of the unit circle under a 2 x 2 gradient after ``steps`` steps; for ``explore``.

    ``stretch`` is the gradient's condition number. Returns an SVG and its alt text.
    """
    u, v = _turn(0.6), _turn(-0.35)
    g = u @ torch.diag(torch.tensor([1.0, 1 / stretch], dtype=torch.float64)) @ v.T
    x = polar_express(g[None], iterations=steps, dtype=torch.float64)[0]
    long, short = (float(s) for s in torch.linalg.svdvals(x))
    x0, y0, size = 240, 146, 118

    def at(point: Tensor) -> str:
        return f"{x0 + size * float(point[0]):.1f} {y0 - size * float(point[1]):.1f}"

    angles = torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64)
    rim = x @ torch.stack((angles.cos(), angles.sin()))
    told = f"singular values {long:.3f} and {_small(short)}, ratio {_small(long / short)}"
    arm: dict[str, Any] = {"width": 4, "stroke_linecap": "round"}
    body = (
        circle(x0, y0, size, stroke_dasharray="2 5", opacity=0.7),
        path(
            "M" + "L".join(map(at, rim.T)) + "Z", PAINT[2], 2.5, fill=PAINT[2], fill_opacity=".18"
        ),
        path(f"M{x0} {y0}L{at(x @ v[:, 0])}", PAINT[0], **arm),
        path(f"M{x0} {y0}L{at(x @ v[:, 1])}", PAINT[1], stroke_dasharray="7 4", **arm),
        words(240, 304, told, "middle", 17),
    )
    shape = "an ellipse" if short >= 0.2 * long else "a thin ellipse"
    shape = "nearly a circle" if short > 0.6 * long else shape
    alt = f"After {steps} steps the unit circle has become {shape}: {told}."
    return drawing(body, 316), alt


def _turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def _small(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def mapped(values: Tensor, coefficients: Triples) -> Tensor:
    """Singular ``values`` after one polynomial a s + b s^3 + c s^5 for each triple, in turn."""
    for a, b, c in coefficients:
        values = a * values + b * values**3 + c * values**5
    return values


def equioscillation(coefficients: Sequence[float], points: Sequence[float]) -> Html:
    """One polynomial on [first point, last point], its four extreme points marked."""
    low, high = points[0], points[-1]
    s = torch.linspace(0, high * 1.02, 300, dtype=torch.float64)
    marks = torch.tensor(list(points), dtype=torch.float64)
    error = float((1 - mapped(marks, [coefficients])).abs().max())
    with plotting(height=2.8) as (fig, axes):
        for level in (1 - error, 1 + error):
            axes.axhline(level, color=COLOURS[5], linewidth=1.2, linestyle="--")
        axes.axhline(1, color=INK, linewidth=1)
        axes.plot(s.numpy(), mapped(s, [coefficients]).numpy(), color=COLOURS[0])
        axes.plot(marks.numpy(), mapped(marks, [coefficients]).numpy(), "o", color=COLOURS[1])
        axes.set(xlabel="singular value before", ylabel="after", ylim=(-0.05, 2.15))
    alt = (
        f"An odd polynomial rises from zero, overshoots 1, dips below it and rises again. At the "
        f"four points {', '.join(f'{p:.3g}' for p in points)} it is off by exactly {error:.4f}, "
        "in turn below and above."
    )
    return show(fig, alt, f"The best quintic on [{low:g}, {high:g}]: four errors of equal size.")


def race_frame(steps: int) -> tuple[Figure, str]:
    """Where three iterations have carried each singular value after ``steps``; for ``explore``."""
    s = torch.logspace(-4, 0, 320, dtype=torch.float64)
    runs = {
        "Newton-Schulz": (NEWTON_SCHULZ, s),
        "Muon of 2024": (JORDAN, s),
        "Polar Express": (COEFFICIENTS, s / SAFETY),
    }
    reached = {}
    with plotting() as (fig, axes):
        axes.axhline(1, color=INK, linewidth=1)
        for name, (coefficients, start) in runs.items():
            y = mapped(start, coefficients[:steps])
            axes.plot(s.numpy(), y.numpy(), label=name)
            reached[name] = [float(y[i]) for i in (0, 106, 213)]
        axes.set(xscale="log", ylim=(0, 2.1), ylabel="after")
        axes.set_xlabel("singular value before, as a part of the norm")
        legend(fig)
    known = "; ".join(f"{n}: " + ", ".join(f"{y:.2g}" for y in ys) for n, ys in reached.items())
    alt = f"Where 0.0001, 0.002 and 0.05 stand after {steps} steps. {known}."
    return fig, alt


def spread_matrix(rows: int = 64, cols: int = 128, decades: float = 4.0) -> tuple[Tensor, ...]:
    """Factors U (rows, rows), s (rows), V^T (rows, cols), float64; s falls over ``decades``."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(rows, cols, dtype=torch.float64, generator=generator)
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    return u, torch.logspace(0, -decades, rows, dtype=torch.float64), vt


def precision_frame(steps: int, precision: str) -> tuple[Figure, str]:
    """Each direction of one matrix before and after, computed in a precision; for ``explore``."""
    u, s, vt = spread_matrix()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    g = ((u * s) @ vt).float()[None]
    x = polar_express(g, iterations=steps, dtype=dtype)[0].double()
    start = s / (SAFETY * s.norm())
    kept = (u * (x @ vt.T)).sum(0)  # u_i . X v_i: how much of each direction came through
    exact = mapped(start, COEFFICIENTS[:steps])
    off = (kept - exact).abs() / exact.abs().clamp_min(1e-9)
    with plotting(height=3.0) as (fig, axes):
        axes.axhline(1, color=INK, linewidth=1)
        x, y = start.numpy(), kept.abs().numpy()
        axes.plot(x, exact.numpy(), color=COLOURS[0], label="exact")
        axes.plot(x, y, "o", markersize=3.5, color=COLOURS[1], label=precision)
        axes.set(xscale="log", yscale="log", ylim=(3e-6, 3), ylabel="after")
        axes.set_xlabel("singular value before, as a part of the norm")
        legend(fig, 2)
    lost = int((off > 0.25).sum())
    alt = (
        f"{precision}, {steps} steps: of {len(s)} directions, {lost} are more than a quarter off "
        f"the exact curve; the smallest singular value has become {float(kept.abs()[-1]):.2g}."
    )
    return fig, alt


def spectra(named: Mapping[str, Tensor], alt: str, caption: str = "") -> Html:
    """Falling singular values (each a mean over matrices or one spectrum), one line a name."""
    with plotting() as (fig, axes):
        for name, values in named.items():
            keep = torch.linspace(0, len(values) - 1, min(len(values), 160)).round().long()
            axes.plot(((keep + 1) / len(values)).numpy(), values[keep].numpy(), label=name)
        axes.set(yscale="log", xlabel="singular values, largest first (as a part of all)")
        axes.set(ylabel="over the largest", ylim=(1e-3, 1.4))
        legend(fig)
    return show(fig, alt, caption)
