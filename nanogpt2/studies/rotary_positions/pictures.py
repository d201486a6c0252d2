"""Pictures of the chapter on rotary positions."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanogpt2.lab.drawing import drawing, words
from nanogpt2.lab.style import COLOURS, figure, style
from nanogpt2.model.rope import rope_tables, rotate

CLOCKS, BASE = 6, 10_000.0
FACE = 52
"""radius of a clock face, in the picture's units"""


def phase_clock(key_position: int, distance: int) -> tuple[str, str]:
    """Six pairs of channels as clocks, one hand for a key and one for a query after it.

    Returns an SVG and its alt text; a frame for ``explore``.
    """
    query_position = key_position + distance
    faces, gaps = [], []
    for pair in range(CLOCKS):
        frequency = BASE ** (-pair / CLOCKS)
        gaps.append(distance * frequency % (2 * math.pi))
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
    return drawing("".join(faces) + words(240, 326, told, "middle", 17), 336), alt


def _face(x: float, y: float, key_angle: float, query_angle: float) -> str:
    def end(angle: float, length: float) -> tuple[float, float]:
        # from twelve o'clock; minus theta, the way the package turns
        return x + length * math.sin(-angle), y - length * math.cos(-angle)

    (kx, ky), (qx, qy) = end(key_angle, FACE - 6), end(query_angle, FACE - 6)
    (ax, ay), (bx, by) = end(key_angle, FACE / 2), end(query_angle, FACE / 2)
    wide = int((query_angle - key_angle) % (2 * math.pi) > math.pi)
    wedge = (
        f'<path d="M{x} {y}L{ax:.1f} {ay:.1f}A{FACE / 2} {FACE / 2} 0 {wide} 0 {bx:.1f} {by:.1f}Z" '
        'fill="var(--ng-c2)" fill-opacity=".3"/>'
    )
    face = (
        f'<circle cx="{x}" cy="{y}" r="{FACE}" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<path d="M{x} {y - FACE}v7" stroke="currentColor" opacity=".6"/>'
    )
    key = (
        f'<path d="M{x} {y}L{kx:.1f} {ky:.1f}" stroke="var(--ng-c1)" stroke-width="3.5" '
        'stroke-dasharray="6 4"/>'
    )
    query = (
        f'<path d="M{x} {y}L{qx:.1f} {qy:.1f}" stroke="var(--ng-c0)" stroke-width="3.5" '
        'stroke-linecap="round"/>'
    )
    return face + wedge + key + query


def _score(query_position: int, key_position: int) -> float:
    """q . k of two fixed vectors at these positions, by the package's own rotation."""
    generator = torch.Generator().manual_seed(4)
    q, k = (torch.randn(1, 1, 1, 2 * CLOCKS, generator=generator) for _ in range(2))
    cos, sin = rope_tables(query_position + 1, 2 * CLOCKS, BASE, dtype=torch.float32)
    turned = [
        rotate(v, cos[p : p + 1], sin[p : p + 1])
        for v, p in ((q, query_position), (k, key_position))
    ]
    return float((turned[0] * turned[1]).sum())


def likeness(base: float, head_dim: int = 128, length: int = 2048) -> Tensor:
    """(length,) score of a vector with its own copy d positions back, 1 at d = 0.

    The vector has the same length in every pair: the mean over pairs of cos(d theta).
    """
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequency).cos().mean(1)


def unfinished_turns(base: float, head_dim: int = 128, length: int = 2048) -> int:
    """How many pairs turn less than once over ``length`` positions."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return int((frequency * length < 2 * math.pi).sum())


def likeness_frame(base: float) -> tuple[Figure, str]:
    """``likeness`` drawn for one base; a frame for ``explore``."""
    values, slow = likeness(base), unfinished_turns(base)
    fig, axes = figure(height=2.7)
    with style():
        # dense near zero, where the curve is steep, and thinner further out
        at = torch.cat((torch.arange(0, 128, 2), torch.arange(128, 2048, 8)))
        axes.plot(at.numpy(), values[at].numpy())
        axes.axhline(0, color=COLOURS[5], linewidth=1)
        axes.set(ylim=(-0.3, 1.05), xlabel="distance in tokens", ylabel="likeness")
        axes.set_title(f"{slow} of 64 pairs turn less than once in 2,048 positions")
    near, far = float(values[:64].mean()), float(values[1024:].mean())
    alt = (
        f"Base {base:,.0f}: likeness falls from 1 at distance 0; it averages {near:.2f} over the "
        f"first 64 positions and {far:.2f} beyond 1,024. {slow} of 64 pairs turn less than once."
    )
    return fig, alt
