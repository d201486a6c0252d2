"""Pictures of the chapter on sliding windows and FlashAttention."""

from __future__ import annotations

import itertools
import math

import torch

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.kernels.windows import receptive_field, window_mask
from nanogpt2.lab.drawing import PAINT, PAPER, arrow, box, cells, drawing, opening, rect, words
from nanogpt2.lab.page import Html
from nanogpt2.studies.windows.measures import pairs

TOKENS = 64
"""in the pictures of reach and of tiles"""
SEEN, OWN, EDGE = PAINT[0], PAINT[1], PAINT[4]


EXAMPLE = ((0.0, math.log(2), math.log(4), 0.0), (10.0, 20.0, 30.0, 40.0))
"""four scores and four values, which the chapter reckons with by hand"""


def one_query(caption: str = "") -> Html:
    """The chapter's idea: the band of scores, and what one query of it does, with shapes."""
    at, tokens, window, query = dial(24, "run1").model, 16, 3, 9
    scores, values = (torch.tensor(row) for row in EXAMPLE)
    weights = scores.softmax(0)
    mixed = ", ".join(f"{weight:g}" for weight in weights.tolist())
    seen = window_mask(tokens, tokens, window)
    heads = f"({at.sequence_len:,}, {at.n_head}, {at.head_dim})"
    drawn = [box(80 + 160 * i, 28, 150, name, heads) for i, name in enumerate("qkv")]
    for m, n in itertools.product(range(tokens), repeat=2):
        own = SEEN if m != query else OWN
        drawn.append(_cell(8 + 11 * n, 108 + 11 * m, 9, own if seen[m, n] else "none"))
    drawn += [
        words(8, 98, f"{tokens} queries by {tokens} keys, window {window}", size=15),
        arrow((192, 108 + 11 * query + 5), (222, 108 + 11 * query + 5), colour=OWN),
        words(232, 122, f"query {query}: q (1, {at.head_dim})", size=15),
        words(
            232, 142, f"keys {query - window} to {query}: k ({window + 1}, {at.head_dim})", size=15
        ),
        words(232, 174, "scores q · k / √D", size=15),
        cells(232, 182, [scores.tolist()], 58, PAINT[1]),
        words(232, 240, "softmax: weights, sum 1", size=15),
        cells(232, 248, [[f"{w:g}" for w in weights.tolist()]], 58, PAINT[1]),
        words(232, 306, "times values (first channel)", size=15),
        cells(232, 314, [values.tolist()], 58, PAINT[0]),
        arrow((348, 344), (348, 370)),
        words(
            348, 390, f"{float(weights @ values):g}, of an output (1, {at.head_dim})", "middle", 15
        ),
        words(8, 316, "In run 1, a layer's head has", size=15),
    ]
    for row, (name, left) in enumerate((("full", 1), ("w = T/2", 2))):
        count = pairs(at.sequence_len, at.sequence_len // left)
        drawn.append(words(8, 340 + 22 * row, f"{name}: {count:,} scores", size=15))
    alt = (
        f"Queries, keys and values have the shape {heads}. A square of {tokens} queries "
        f"by {tokens} keys, filled in a band below the diagonal. Query {query} sees "
        f"{window + 1} keys: its scores become the weights {mixed}, which "
        f"mix the values 10, 20, 30 and 40 to {float(weights @ values):g}."
    )
    return opening(drawn, 400, alt, caption)


def mask_frame(window: int) -> tuple[str, str]:
    """Which of 16 keys each of 16 queries sees; a frame for ``explore``."""
    seen = window_mask(16, 16, window)
    cells = []
    for query, key in itertools.product(range(16), repeat=2):
        fill = "none" if not seen[query, key] else OWN if key == query else SEEN
        cells.append(_cell(100 + 22 * key, 26 + 22 * query, 20, fill))
    pairs, causal = int(seen.sum()), 16 * 17 // 2
    told = f"{pairs} of {causal} scores"
    body = [words(100, 16, "keys, oldest first"), words(4, 200, "queries"), *cells]
    alt = (
        f"Window {window}: each of 16 queries sees itself and at most {window} keys before it, "
        f"a band along the diagonal; {told} are needed."
    )
    return drawing([*body, words(100, 398, told)], 404), alt


def reach_frame(pattern: str, window: str, depth: int) -> tuple[str, str]:
    """How much of 64 tokens the last one can know of after each layer; a frame for ``explore``."""
    config = GPTConfig(
        sequence_len=TOKENS,
        n_layer=depth,
        window_pattern=pattern,
        short_window_divisor=int(window.removeprefix("T/")),
    )
    windows = config.window_sizes()
    step, left, wide = 300 / (depth + 1), 76, 400
    body, told = [], []
    for level in range(depth + 1):
        known = min(TOKENS, 1 + receptive_field(windows[:level]))
        y = 304 - step * (level + 1)
        start = left + wide * (TOKENS - known) / TOKENS
        full = level and windows[level - 1][0] >= TOKENS
        kind = "" if level == 0 else "L" if full else "S"
        body.append(rect(left, y, wide, step - 3, stroke="currentColor", opacity=".25"))
        body.append(rect(start, y, left + wide - start, step - 3, OWN if kind == "L" else SEEN))
        name = "input" if level == 0 else f"{level}: {kind}"
        if depth <= 8 or level % 2 == 0:
            body.append(words(left - 8, y + step / 2 + 4, name, "end", 14))
        told.append(f"{known} after {name}" if level else f"{known} at the input")
    body.append(words(left, 324, "oldest token") + words(left + wide, 324, "last", "end"))
    alt = f"Tokens that the last one can know of, layer by layer: {'; '.join(told)}."
    return drawing(body, 332), alt


def tile_kinds(length: int, window: int, tile: int) -> dict[tuple[int, int], str]:
    """(row, column) of each tile of the score matrix -> "skipped", "whole" or "edge" (masked)."""
    mask, kinds = window_mask(length, length, window), {}
    for row, column in itertools.product(range(-(-length // tile)), repeat=2):
        part = mask[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        kinds[row, column] = "whole" if part.all() else "edge" if part.any() else "skipped"
    return kinds


def tiles_frame(window: str, tile: int) -> tuple[str, str]:
    """The score matrix of 64 tokens cut into tiles; a frame for ``explore``."""
    left = TOKENS // int(window.removeprefix("T/")) if window != "full" else TOKENS
    kinds = tile_kinds(TOKENS, left, tile)
    size = 352 * tile / TOKENS
    fills = {"skipped": "none", "whole": SEEN, "edge": EDGE}
    cells = [
        _cell(64 + size * column, 4 + size * row, size - 2, fills[kind])
        for (row, column), kind in kinds.items()
    ]
    counts = {kind: list(kinds.values()).count(kind) for kind in fills}
    told = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    work = (counts["whole"] + counts["edge"]) * tile**2
    need = int(window_mask(TOKENS, TOKENS, left).sum())
    cells += [words(64, 382, told), words(64, 404, f"{work:,} scores computed, {need:,} needed")]
    alt = (
        f"Window {window}, tiles of {tile} by {tile}: {told}. "
        f"{work:,} scores are computed where {need:,} are needed."
    )
    return drawing(cells, 412), alt


def ring_frame(tokens: int, window: int = 7) -> tuple[str, str]:
    """A layer's ring after so many tokens: which token lies in which slot; for ``explore``."""
    slots = window + 1
    held = {p % slots: p for p in range(max(0, tokens - slots), tokens)}
    body = []
    for slot in range(slots):
        x, token = 6 + 59 * slot, held.get(slot)
        fill = "none" if token is None else OWN if token == tokens - 1 else SEEN
        body.append(_cell(x, 30, 52, fill, ".35" if fill == SEEN else "1"))
        if token is not None:
            style = f"fill:{PAPER}" if fill == OWN else ""
            body.append(words(x + 26, 62, str(token), "middle", 18, style=style))
        body.append(words(x + 26, 102, f"slot {slot}", "middle", 14))
    gone = max(0, tokens - slots)
    told = f"token {tokens - 1} is the newest; {gone} forgotten"
    alt = (
        f"A ring of {slots} slots after {tokens} tokens holds tokens "
        f"{max(0, tokens - slots)} to {tokens - 1}; token {tokens - 1} lies in slot "
        f"{(tokens - 1) % slots}."
    )
    return drawing([*body, words(6, 18, told)], 110), alt


def _cell(x: float, y: float, size: float, fill: str, opacity: str = "1") -> str:
    ink = {"stroke": "currentColor", "stroke_opacity": ".3"}
    return rect(x, y, size, size, fill, fill_opacity=opacity, **ink)
