"""Pictures and tables of the chapter on the plain GPT and the one dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanogpt2.depth import dial, flops_per_token
from nanogpt2.lab.drawing import PAINT, PAPER, box, drawing, joint, path, rect, show, words
from nanogpt2.lab.page import Html
from nanogpt2.lab.plots import lines
from nanogpt2.machines import machine_of
from nanogpt2.planning import plan

DEPTHS = (4, 8, 12, 16, 20, 24, 26, 28, 32)
GPUS = 8
TALL = 200
"""units that the vocabulary's rows take in the drawing to scale"""
KINDS = {
    "embedding": PAINT[0],
    "value tables": PAINT[2],
    "head": PAINT[1],
    "attention": PAINT[3],
    "MLP": PAINT[4],
}


def flow_picture(text: str, tokens: Sequence[int], caption: str = "") -> Html:
    """A plain GPT-2 from ``text`` to loss: the stream down the left, what reads and writes it."""
    stream, branch, place, right = 150, 306, 346, 472
    small: dict[str, Any] = {"anchor": "end", "size": 14}

    def write(top: int, name: str, shape: str) -> str:
        """A norm and a part beside the stream, from where they read to where they add."""
        return "".join(
            (
                path(f"M{stream} {top}H{branch - 62}", width=1.5),
                box(branch, top, 124, "LayerNorm"),
                path(f"M{branch} {top + 20}v16", width=1.5),
                box(branch, top + 56, 124, name),
                words(right - 8, top + 61, shape, **small),
                path(f"M{branch} {top + 76}v20H{stream + 14}", width=1.5),
                joint(stream, top + 96, "+"),
            )
        )

    body = (
        words(stream, 20, f'"{text}"', "middle"),
        path(f"M{stream} 28v12", width=1.5),
        box(stream, 60, 160, " ".join(map(str, tokens))),
        words(right, 65, f"T = {len(tokens)} tokens", **small),
        path(f"M{stream} 80v34", width=1.5),
        words(stream - 14, 104, "table (V, C)", **small),
        box(stream, 134, 160, "a row for each"),
        words(place + 76, 104, "table (T, C)", **small),
        box(place, 134, 152, "a row for its place"),
        path(f"M{stream} 154v32", PAINT[0], 4),
        path(f"M{place} 154v46H{stream + 14}", width=1.5),
        joint(stream, 200, "+"),
        path(f"M{stream} 214v160", PAINT[0], 4),
        words(stream - 14, 240, "stream x", **small),
        words(stream - 14, 258, "(T, C)", **small),
        rect(stream - 30, 262, right - stream + 34, 278, rx=8, stroke="currentColor",
             stroke_dasharray="5 4"),
        words(stream - 40, 405, "L times", **small),
        write(292, "attention", "mixes places"),
        path(f"M{stream} 402v104", PAINT[0], 4),
        write(424, "MLP", "C, 4C, C"),
        path(f"M{stream} 534v28", PAINT[0], 4),
        box(stream, 582, 160, "LayerNorm"),
        path(f"M{stream} 602v16", width=1.5),
        box(stream, 638, 160, "times table (V, C)"),
        words(right, 643, "the same table again", **small),
        path(f"M{stream} 658v16", width=1.5),
        box(stream, 694, 160, "softmax"),
        words(right, 699, "(T, V): what comes next?", **small),
    )  # fmt: skip
    alt = (
        f"From top to bottom: {len(tokens)} tokens become rows of a table, rows of a second table "
        "say their places and are added; the sum is the residual stream, a thick line. In each of "
        "L layers attention and then the MLP read the stream through a LayerNorm and add what they "
        "found to it. At the end a LayerNorm, a product with the first table, and a softmax."
    )
    return show(drawing(body, 720), alt, caption)


def scale_frame(recipe: str, depth: int) -> tuple[str, str]:
    """A model drawn to scale, an area for its parameters, and what else its depth decides."""
    found = dial(depth, recipe)
    model = found.model
    side = TALL * model.n_embd / model.padded_vocab_size
    values = sum(model.has_value_embedding(i) for i in range(depth))
    told, body, top = list(dial_facts(recipe, depth).items()), list[str](), 150
    for i, (name, value) in enumerate(told):
        left, low = (2, 252)[i % 2], 18 + 22 * (i // 2)
        body += [words(left, low, name, size=15), words(left + 224, low, value, "end", 15)]
    at = 4.0
    for colour, count in ((PAINT[0], 1), (PAINT[2], values), (PAINT[1], 1)):
        for _ in range(count):
            body.append(rect(at, top, max(side, 1), TALL, colour))
            at += side + 2
        at += 5
    for i, (name, colour) in enumerate(KINDS.items()):
        body.append(rect(352, top + 4 + 24 * i, 14, 14, colour))
        body.append(words(374, top + 16 + 24 * i, name, size=15))
    a_row = int(476 // (2 * side + 4))
    for layer in range(depth):
        row, column = divmod(layer, a_row)
        x, y = 4 + column * (2 * side + 4), top + TALL + 14 + row * (6 * side + 6)
        body.append(_layer(x, y, side))
    kinds = f"{depth} layers of twelve squares {model.n_embd} wide, {values} value tables"
    alt = f"Depth {depth}, {recipe}: {kinds}, embedding and head, all to one scale. "
    alt += "; ".join(f"{name} {value}" for name, value in told) + "."
    return drawing(body, top + TALL + 182), alt


def _layer(x: float, y: float, side: float) -> str:
    """Four matrices of attention, and under them the eight squares of the MLP's two."""
    attention = rect(x, y, 2 * side, 2 * side, KINDS["attention"])
    mlp = rect(x, y + 2 * side, 2 * side, 4 * side, KINDS["MLP"])
    lines = f"M{x:.1f} {y + side:.1f}h{2 * side:.1f}M{x + side:.1f} {y:.1f}v{6 * side:.1f}"
    return attention + mlp + (path(lines, PAPER, 0.6) if side > 3 else "")


def dial_facts(recipe: str, depth: int) -> dict[str, str]:
    """What follows from the depth, in words as short as they can be."""
    found = dial(depth, recipe)
    costs = plan(recipe, depth, machine_of("H100", GPUS))
    assert costs.seconds is not None and costs.dollars is not None
    return {
        "width": f"{found.n_embd:,}",
        "heads of 128": f"{found.n_head}",
        "parameters": f"{found.parameters['total'] / 1e6:,.0f} M",
        "of them N": f"{found.scaling_parameters / 1e6:,.0f} M",
        "tokens": f"{found.tokens / 1e9:,.2f} G",
        "FLOPs": f"{found.total_flops:.1e}",
        "batch": f"{found.batch_tokens:,}",
        "steps": f"{found.iterations:,}",
        "rates, times": f"{found.lr_scale:.3g}",
        "Muon's decay": f"{found.weight_decay:.3f}",
        "time, 8 H100": _time(costs.seconds),
        "dollars": f"{costs.dollars:,.2f}",
    }


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def growth_rows(depths: Sequence[int], recipe: str = "run1") -> list[list[Any]]:
    """Rows: depth, then width, N, tokens, FLOPs of the whole run, each times that of depth 12."""
    base, rows = dial(12, recipe), []
    for depth in depths:
        at = dial(depth, recipe)
        pairs = (
            (at.n_embd, base.n_embd),
            (at.scaling_parameters, base.scaling_parameters),
            (at.tokens, base.tokens),
            (at.total_flops, base.total_flops),
        )
        rows.append([f"{depth}", *(f"{ours / theirs:.3g}" for ours, theirs in pairs)])
    return rows


def share_rows(depths: Sequence[int], recipe: str = "run1") -> list[list[Any]]:
    """Rows: depth, and the head's, attention's and matrices' parts of the FLOPs of a token."""
    rows = []
    for depth in depths:
        at = dial(depth, recipe)
        head, blocks = (6 * at.parameters[kind] for kind in ("lm_head", "matrices"))
        whole = flops_per_token(at.model)
        parts = (blocks, head, whole - blocks - head)
        rows.append([f"{depth}", *(f"{part / whole:.1%}" for part in parts)])
    return rows


def start_lines(found: Mapping[str, Sequence[float]], caption: str = "") -> Html:
    """How large the stream is after each layer of an untrained model, by start."""
    ends = ", ".join(f"{name} {sizes[-1]:.2g}" for name, sizes in found.items())
    first = next(iter(found.values()))[0]
    return lines(
        range(len(next(iter(found.values())))), found, log_y=True, caption=caption,
        x_label="after layer", y_label="rms of the stream",
        alt=f"The stream's rms over the layers, {first:.2g} at first; after the last: {ends}.",
    )  # fmt: skip
