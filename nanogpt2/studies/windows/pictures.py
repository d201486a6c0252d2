"""Pictures of the chapter on sliding windows and FlashAttention."""

from __future__ import annotations

import itertools

from nanogpt2.config import GPTConfig
from nanogpt2.kernels.windows import receptive_field, window_mask
from nanogpt2.lab.drawing import PAINT, PAPER, drawing, rect, words

TOKENS = 64
"""in the pictures of reach and of tiles"""
SEEN, OWN, EDGE = PAINT[0], PAINT[1], PAINT[4]


def mask_frame(window: int) -> tuple[str, str]:
    """Which of 16 keys each of 16 queries sees; a frame for ``explore``."""
    seen = window_mask(16, 16, window)
    cells = []
    for query, key in itertools.product(range(16), repeat=2):
        fill = "none" if not seen[query, key] else OWN if key == query else SEEN
        cells.append(_cell(100 + 22 * key, 26 + 22 * query, 20, fill))
    pairs, causal = int(seen.sum()), 16 * 17 // 2
    told = f"{pairs} of {causal} scores"
    body = words(100, 16, "keys, oldest first") + words(4, 200, "queries") + "".join(cells)
    alt = (
        f"Window {window}: each of 16 queries sees itself and at most {window} keys before it, "
        f"a band along the diagonal; {told} are needed."
    )
    return drawing(body + words(100, 398, told), 404), alt


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
    return drawing("".join(body), 332), alt


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
    body = "".join(cells) + words(64, 382, told)
    body += words(64, 404, f"{work:,} scores computed, {need:,} needed")
    alt = (
        f"Window {window}, tiles of {tile} by {tile}: {told}. "
        f"{work:,} scores are computed where {need:,} are needed."
    )
    return drawing(body, 412), alt


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
    return drawing("".join(body) + words(6, 18, told), 110), alt


def _cell(x: float, y: float, size: float, fill: str, opacity: str = "1") -> str:
    ink = {"stroke": "currentColor", "stroke_opacity": ".3"}
    return rect(x, y, size, size, fill, fill_opacity=opacity, **ink)
