"""Pictures of the chapter on rotary positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanogpt2.depth import dial
from nanogpt2.lab.drawing import PAINT, arrow, box, circle, drawing, opening, path, words
from nanogpt2.lab.page import Html
from nanogpt2.model.rope import rope_tables, rotate
from nanogpt2.reporting.figures import COLOURS, plotting

CLOCKS, BASE = 6, 10_000.0
FACE = 52
"""radius of a clock face, in the picture's units"""


def turning_row(text: str = "the dog bites the man now", caption: str = "") -> Html:
    """The chapter's idea: every token turns its clocks by its position, and a score compares them.

    The two clocks are those of a head of four channels with base 100.
    """
    at, size = dial(24, "run1").model, 24
    theta = frequencies(100.0, 4).tolist()
    key, query = 1, 4
    apart = " and by ".join(f"{angle * (query - key):g}" for angle in theta) + " radians,"
    drawn = [
        box(120, 28, 220, "the stream, normed: h", f"({at.sequence_len:,}, {at.n_embd:,})"),
        arrow((230, 28), (282, 28)),
        box(376, 28, 184, "queries q, keys k", f"({at.sequence_len:,}, {at.n_head}, "
            f"{at.head_dim})"),
        arrow((376, 53), (376, 84)),
    ]  # fmt: skip
    for m, word in enumerate(text.split()):
        x = 50 + 76 * m
        colour = PAINT[1] if m == key else PAINT[0] if m == query else "currentColor"
        drawn += [words(x, 104, str(m), "middle", 15), words(x, 126, word, "middle", 17)]
        for row, angle in enumerate(theta):
            y = 164 + 76 * row
            tip = (
                f"{x + (size - 5) * math.sin(m * angle):.1f} "
                f"{y - (size - 5) * math.cos(m * angle):.1f}"
            )
            drawn += [circle(x, y, size, opacity=".5"), path(f"M{x} {y}L{tip}", colour, 3.5)]
    drawn += [
        words(4, 206, f"fast pair: {theta[0]:g} radian a position", size=15),
        words(4, 282, f"slow pair: {theta[1]:g} radian a position", size=15),
        arrow((50 + 76 * key, 292), (50 + 76 * key, 322), (212, 322), colour=PAINT[1]),
        arrow((50 + 76 * query, 292), (50 + 76 * query, 322), (274, 322), colour=PAINT[0]),
        words(243, 328, "q · k", "middle"),
        words(240, 356, f"{query - key} apart: the hands differ by {apart}", "middle"),
        words(240, 378, "wherever in the row the two tokens stand", "middle"),
    ]  # fmt: skip
    alt = (
        "From the stream come queries and keys. Under each of six tokens in a row stand two "
        "clocks; the fast one has turned by 1 radian a position, the slow one by 0.1. The query "
        "of token 4 meets the key of token 1: their hands differ by 3 and by 0.3 radians."
    )
    return opening(drawn, 388, alt, caption)


def phase_clock(key_position: int, distance: int) -> tuple[str, str]:
    """Six pairs of channels as clocks, one hand for a key and one for a query after it.

    Returns an SVG and its alt text; a frame for ``explore``.
    """
    query_position = key_position + distance
    faces, gaps = [], []
    for pair in range(CLOCKS):
        frequency = BASE ** (-pair / CLOCKS)
        gaps.append(distance * frequency % (math.tau))
        x, y = 80 + 160 * (pair % 3), 66 + 156 * (pair // 3)
        faces.append(_face(x, y, key_position * frequency, query_position * frequency))
        faces.append(words(x, y + FACE + 22, f"{frequency:.3g} a step", "middle", 15))
    score = _score(query_position, key_position)
    told = (
        f"key at {key_position:,} (dashed), query at {query_position:,} (solid): score {score:.3f}"
    )
    apart = ", ".join(f"{gap:.2f}" for gap in gaps)
    alt = (
        f"Six clocks from fast to slow. Key at position {key_position}, query at {query_position}: "
        f"their hands are {apart} radians apart, and the score is {score:.3f}."
    )
    return drawing([*faces, words(240, 326, told, "middle", 17)], 336), alt


def _face(x: float, y: float, key_angle: float, query_angle: float) -> str:
    def hand(angle: float, length: float) -> str:
        return f"{x + length * math.sin(angle):.1f} {y - length * math.cos(angle):.1f}"

    r, center, wide = FACE / 2, f"M{x} {y}L", (query_angle - key_angle) % math.tau > math.pi
    wedge = f"{center}{hand(key_angle, r)}A{r} {r} 0 {wide:d} 1 {hand(query_angle, r)}Z"
    key, query = (center + hand(angle, FACE - 6) for angle in (key_angle, query_angle))
    return "".join(
        (
            circle(x, y, FACE, opacity=".4"),
            path(f"M{x} {y - FACE}v7", opacity=".6"),
            path(wedge, "none", fill=PAINT[2], fill_opacity=".3"),
            path(key, PAINT[1], 3.5, stroke_dasharray="6 4"),
            path(query, PAINT[0], 3.5, stroke_linecap="round"),
        )
    )


def _score(query_position: int, key_position: int) -> float:
    """q . k of two fixed vectors at these positions, by the package's own rotation."""
    generator = torch.Generator().manual_seed(4)
    q, k = (torch.randn(1, 1, 1, 2 * CLOCKS, generator=generator) for _ in range(2))
    tables = rope_tables(query_position + 1, 2 * CLOCKS, BASE, dtype=torch.float32)
    return turned_score(q, k, query_position, key_position, tables)


def turned_score(
    q: Tensor, k: Tensor, query_position: int, key_position: int, tables: Sequence[Tensor]
) -> float:
    """q . k of vectors (1, 1, 1, D), each turned by its position's row of the two ``tables``."""
    q, k = (
        rotate(v, *(table[p : p + 1] for table in tables))
        for v, p in ((q, query_position), (k, key_position))
    )
    return float((q * k).sum())


def frequencies(base: float, head_dim: int) -> Tensor:
    """(D / 2,) radians that each pair turns from one position to the next, float64."""
    return base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def likeness(base: float, head_dim: int = 128, length: int = 2048) -> Tensor:
    """(length,) score of a vector with its own copy d positions back, 1 at d = 0.

    The vector has the same length in every pair: the mean over pairs of cos(d theta).
    """
    at = torch.arange(length, dtype=torch.float64)
    return torch.outer(at, frequencies(base, head_dim)).cos().mean(1)


def unfinished_turns(base: float, head_dim: int = 128, length: int = 2048) -> int:
    """How many pairs turn less than once over ``length`` positions."""
    return int((frequencies(base, head_dim) * length < math.tau).sum())


def likeness_frame(base: float) -> tuple[Figure, str]:
    """``likeness`` drawn for one base; a frame for ``explore``."""
    values, slow = likeness(base), unfinished_turns(base)
    lowest = float(values.min())
    with plotting(height=2.7) as (fig, axes):
        # dense near zero, where the curve is steep, and thinner further out
        at = torch.cat((torch.arange(0, 128, 2), torch.arange(128, 2048, 8)))
        axes.plot(at.numpy(), values[at].numpy())
        axes.axhline(0, color=COLOURS[5], linewidth=1)
        axes.set(
            ylim=(min(-0.3, 1.05 * lowest), 1.05), xlabel="distance in tokens", ylabel="likeness"
        )
        axes.set_title(f"{slow} of 64 pairs turn less than once in 2,048 positions")
    near, far = float(values[:64].mean()), float(values[1024:].mean())
    alt = (
        f"Base {base:,.0f}: likeness is 1 at distance 0 and {lowest:.2f} at its lowest. It "
        f"averages {near:.2f} over the first 64 positions and {far:.2f} beyond 1,024. {slow} of 64 "
        "pairs turn less than once."
    )
    return fig, alt
