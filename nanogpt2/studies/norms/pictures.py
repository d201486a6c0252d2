"""Pictures of the chapter on RMSNorm and QK-norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.depth import dial
from nanogpt2.lab.drawing import (
    PAINT,
    PAPER,
    arrow,
    box,
    cells,
    circle,
    drawing,
    joint,
    opening,
    path,
    rect,
    show,
    words,
)
from nanogpt2.lab.page import Html
from nanogpt2.model.norm import rms_norm

PATTERN = (1.4, -0.3, 0.8, -1.6, 0.2, -0.9, 1.1, -0.7)
"""a vector of mean 0 and rms 1, near enough, for the first figure"""


EXAMPLE = (1.0, 5.0, -1.0, 3.0)
"""four channels of rms 3 and mean 2, which the chapter reckons with by hand"""


def two_lengths(caption: str = "") -> Html:
    """The chapter's idea: two tokens of one direction and different lengths, before and after."""
    at = dial(24, "run1").model
    drawn = [
        path("M30 20V244M30 272V312", PAINT[5], 5),
        words(46, 34, f"the stream x ({at.sequence_len:,}, {at.n_embd:,}): four channels of two "
              "tokens", size=15),
    ]  # fmt: skip
    told = []
    for y, name, times in ((74, "a loud token", 10.0), (162, "a quiet one", 0.1)):
        x = times * torch.tensor(EXAMPLE)
        rms, after = float(x.square().mean().sqrt()), rms_norm(x)
        drawn += [
            words(60, y - 10, name, size=15),
            arrow((30, y + 15), (58, y + 15)),
            cells(60, y, [x.tolist()], 43, PAINT[1]),
            arrow((234, y + 15), (300, y + 15)),
            words(266, y + 6, f"÷ {rms:g}", "middle", 15),
            cells(302, y, [after.tolist()], 43, PAINT[0]),
        ]
        told.append(f"{name} of root mean square {rms:g} becomes {_listed(after, 2)}")
    drawn += [
        words(302, 64, "rms 1", size=15),
        arrow((388, 192), (388, 232)),
        words(380, 218, "what follows cannot tell them apart", "end", 15),
        box(388, 258, 150, "a matrix W", f"({4 * at.n_embd:,}, {at.n_embd:,})"),
        arrow((313, 258), (46, 258)),
        joint(30, 258, "+"),
        words(180, 250, "adds to the stream", "middle", 15),
        words(46, 306, "the stream itself goes on, its length untouched", size=15),
    ]
    alt = f"Beside the stream, {'; '.join(told)}. A matrix reads that and adds to the stream."
    return opening(drawn, 320, alt, caption)


def norm_frame(times: float, plus: float) -> tuple[str, str]:
    """``times * (pattern + plus)``, and what LayerNorm and RMSNorm make of it; for ``explore``."""
    x = times * (torch.tensor(PATTERN, dtype=torch.float64) + plus)
    layer, rms = F.layer_norm(x, x.shape, eps=torch.finfo(torch.float32).eps), rms_norm(x)
    size = float(x.square().mean().sqrt())
    told = (f"x: rms {size:.3g}, mean {float(x.mean()):.3g}", "LayerNorm(x)", "RMSNorm(x)")
    panels = zip(told, (x, layer, rms), (1.25 * float(x.abs().max()), 2.2, 2.2), strict=True)
    bodies = [
        _bars(110 * row, label, values, most, PAINT[row])
        for row, (label, values, most) in enumerate(panels)
    ]
    alt = (
        f"Eight numbers of rms {size:.3g} as bars. After LayerNorm: {_listed(layer)}. "
        f"After RMSNorm: {_listed(rms)}."
    )
    return drawing(bodies, 330), alt


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
    told = f"largest score {float(scores.max()):.3g}, slope left {slope:.2g}"
    body = _bars(14, told, weights, 1.0, PAINT[qk_norm == "on"], signed=False)
    alt = (
        f"Queries and keys {length:g} times their first length, QK-norm {qk_norm}: attention "
        f"weights {_listed(weights, 2)}; {told}."
    )
    return drawing(body, 150), alt


def _bars(
    top: float, label: str, values: Tensor, most: float, colour: str, signed: bool = True
) -> str:
    height, base = (42.0, top + 64) if signed else (96.0, top + 120)
    step = 480 / len(values)
    drawn = [words(4, top + 15, label), path(f"M0 {base:.0f}h480", opacity=".5")]
    for i, value in enumerate(values.tolist()):
        tall = value / most * height
        drawn.append(rect(i * step + 8, base - max(tall, 0), step - 16, abs(tall), colour))
    return "".join(drawn)


def _listed(values: Tensor, digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values.tolist())


def block_picture(caption: str = "") -> Html:
    """Where the norms stand: the stream from the embedding down to the head."""
    drawn = [
        path("M152 60v120M152 200v85M152 305v55", PAINT[5], 4),
        path("M80 118h-8v200h8", opacity=".6"),
        words(8, 224, "L times"),
        words(164, 112, "the stream"),
        box(152, 40, 120, "wte"),
        box(152, 380, 120, "lm_head"),
        words(222, 385, "then the softcap"),
    ]
    for y, name in ((140, "attention"), (245, "MLP")):
        drawn += [
            path(f"M152 {y}h98M310 {y + 20}v30h-148"),
            joint(152, y + 50, "+", 10),
            box(310, y, 120, name),
        ]
    drawn += [words(412, 145, "q and k"), words(380, 250, "relu squared")]
    places = ((152, 88), (204, 140), (394, 140), (204, 245), (152, 334))
    for number, (x, y) in enumerate(places, 1):
        drawn.append(circle(x, y, 13, fill=PAINT[0], stroke="none"))
        white = {"font_weight": "700", "style": f"fill:{PAPER}"}
        drawn.append(words(x, y + 5.5, str(number), "middle", 15, **white))
    alt = (
        "The residual stream runs from the embedding to the head. Norm 1 follows the embedding; "
        "norm 2 stands on the branch to attention, norm 3 on queries and keys inside it; norm 4 "
        "on the branch to the MLP; norm 5 before the head. Both branches add to the stream."
    )
    return show(drawing(drawn, 410), alt, caption)
