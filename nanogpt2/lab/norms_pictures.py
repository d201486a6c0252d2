"""Pictures of the chapter on RMSNorm and QK-norm."""

from __future__ import annotations

from html import escape

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.lab.page import Html, inline, part
from nanogpt2.model.norm import rms_norm

PATTERN = (1.4, -0.3, 0.8, -1.6, 0.2, -0.9, 1.1, -0.7)
"""a vector of mean 0 and rms 1, near enough, for the first figure"""


def norm_frame(times: float, plus: float) -> tuple[str, str]:
    """``times * (pattern + plus)``, and what LayerNorm and RMSNorm make of it; for ``explore``."""
    x = times * (torch.tensor(PATTERN, dtype=torch.float64) + plus)
    layer, rms = F.layer_norm(x, x.shape), rms_norm(x)
    size = float(x.square().mean().sqrt())
    told = (f"x: rms {size:.3g}, mean {float(x.mean()):.2g}", "LayerNorm(x)", "RMSNorm(x)")
    panels = zip(told, (x, layer, rms), (float(x.abs().max()), 2.2, 2.2), strict=True)
    bodies = [
        _bars(110 * row, label, values, most, f"var(--ng-c{row})")
        for row, (label, values, most) in enumerate(panels)
    ]
    alt = (
        f"Eight numbers of rms {size:.3g} as bars. After LayerNorm: {_listed(layer)}. "
        f"After RMSNorm: {_listed(rms)}."
    )
    return _drawing("".join(bodies), 330), alt


def attention_frame(length: float, qk_norm: str) -> tuple[str, str]:
    """Attention of one query over ten keys, ``length`` times as long as at the start."""
    generator = torch.Generator().manual_seed(7)
    q = torch.randn(1, 32, generator=generator, dtype=torch.float64)
    k = torch.randn(10, 32, generator=generator, dtype=torch.float64)
    q, k = q * length, k * length
    if qk_norm == "on":
        q, k = rms_norm(q), rms_norm(k)
    scores = (q @ k.T)[0] / 32**0.5
    weights = scores.softmax(0)
    slope = float((weights * (1 - weights)).sum())
    words = f"largest score {float(scores.max()):.3g}, slope left {slope:.2g}"
    body = _bars(14, words, weights, 1.0, f"var(--ng-c{int(qk_norm == 'on')})", signed=False)
    alt = (
        f"Queries and keys {length:g} times their first length, QK-norm {qk_norm}: attention "
        f"weights {_listed(weights, 2)}; {words}."
    )
    return _drawing(body, 150), alt


def _bars(
    top: float, label: str, values: Tensor, most: float, colour: str, signed: bool = True
) -> str:
    height, base = (42.0, top + 64) if signed else (96.0, top + 120)
    step = 480 / len(values)
    drawn = [
        f'<text x="4" y="{top + 15:.0f}" font-size="16" fill="currentColor">{escape(label)}</text>'
        f'<path d="M0 {base:.0f}h480" stroke="currentColor" opacity=".5"/>'
    ]
    for i, value in enumerate(values.tolist()):
        tall = value / most * height
        y = base - max(tall, 0)
        drawn.append(
            f'<rect x="{i * step + 8:.1f}" y="{y:.1f}" width="{step - 16:.1f}" '
            f'height="{abs(tall):.1f}" fill="{colour}"/>'
        )
    return "".join(drawn)


def _drawing(body: str, height: int) -> str:
    return (
        f'<svg viewBox="0 0 480 {height}" width="480" xmlns="http://www.w3.org/2000/svg">'
        f"{body}</svg>"
    )


def _listed(values: Tensor, digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values.tolist())


PLACES = (
    (60, "wte", 1, "the embedding"),
    (150, "attention", 2, "q and k: norm 3"),
    (240, "MLP", 4, "relu squared"),
    (330, "lm_head", 5, "softcap"),
)


def block_picture(caption: str = "") -> Html:
    """Where the norms stand: the stream from the embedding down to the head."""
    drawn = []
    for y, name, number, note in PLACES:
        branch = name in ("attention", "MLP")
        x = 250 if branch else 92
        drawn.append(
            f'<rect x="{x}" y="{y - 20}" width="120" height="40" rx="6" fill="none" '
            f'stroke="currentColor"/><text x="{x + 60}" y="{y + 6}" text-anchor="middle" '
            f'font-size="16" fill="currentColor">{name}</text>'
            f'<text x="{x + 130}" y="{y + 5}" font-size="14" fill="currentColor">{note}</text>'
        )
        if branch:
            drawn.append(
                f'<path d="M152 {y}h98M310 {y + 20}v22h-146" fill="none" stroke="currentColor"/>'
                f'<circle cx="152" cy="{y + 42}" r="10" fill="none" stroke="currentColor"/>'
                f'<text x="152" y="{y + 48}" text-anchor="middle" font-size="17" '
                'fill="currentColor">+</text>'
            )
        at = (200, y) if branch else (152, y + 38 if number == 1 else y - 32)
        drawn.append(_badge(*at, number))
    down = (
        '<path d="M152 80v102M152 202v70M152 292v18" stroke="var(--ng-c5)" stroke-width="4" '
        'fill="none"/><text x="8" y="205" font-size="14" fill="currentColor">the stream</text>'
        '<text x="8" y="223" font-size="14" fill="currentColor">L times</text>'
        '<path d="M88 122v178" stroke="currentColor" opacity=".5"/>'
    )
    alt = (
        "The residual stream runs from the embedding to the head. Norm 1 follows the embedding; "
        "norm 2 stands on the branch to attention, norm 3 on queries and keys inside it; norm 4 "
        "on the branch to the MLP; norm 5 before the head. Both branches add to the stream."
    )
    picture = (
        f'<div role="img" aria-label="{escape(alt, quote=True)}">'
        f"{_drawing(down + ''.join(drawn), 360)}</div>"
    )
    words = f"<figcaption>{inline(caption)}</figcaption>" if caption else ""
    return Html(part("figure", f"<figure>{picture}{words}</figure>"), f"[figure: {alt}]")


def _badge(x: float, y: float, number: int) -> str:
    return (
        f'<circle cx="{x}" cy="{y}" r="13" fill="var(--ng-c0)"/>'
        f'<text x="{x}" y="{y + 5.5}" text-anchor="middle" font-size="15" font-weight="700" '
        f'class="ng-on" style="fill:var(--pst-color-background,#fff)">{number}</text>'
    )
