"""Pictures of the chapter on tokens and rows: merges, vocabularies, rows, the buffer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import islice

from matplotlib.figure import Figure

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.lab import drawing
from nanogpt2.lab.drawing import PAINT, path, rect, show, words
from nanogpt2.lab.page import Html
from nanogpt2.reported import CROPPED, CROPPED_FLOOR, CROPPED_GREEDY
from nanogpt2.reporting.figures import COLOURS, DASHES, legend, plotting
from nanogpt2.studies.tokens_and_rows.layouts import (
    PADDING,
    ROW,
    WAYS,
    filling,
    floor,
    kept_by_place,
    shares,
    web_lengths,
)
from nanogpt2.studies.tokens_and_rows.merging import (
    SAMPLE,
    first_merges,
    newest,
    sample_tokenizer,
    vocabulary_rows,
)

BUFFERS, REFILLS = (100, 1000), (1, 16, 128)
SIMULATED = 24_000
"""documents of the simulations"""
SHOWN = 9
EDGES = (0, 128, 256, 512, 768, 1024, 1280, 1536, 1792, ROW, 3072, 4096)


def tokens_html(tokenizer: Tokenizer, text: str) -> str:
    """``text`` with every token in a box of its own; a blank is shown as a dot on the line."""
    boxes = []
    for number, token in enumerate(tokenizer.encode(text)):
        piece = tokenizer.encoding.decode_single_token_bytes(token).decode("utf-8", "replace")
        colour = PAINT[number % 3]
        boxes.append(
            f'<span style="display:inline-block;margin:1px;padding:0 .25em;border-radius:4px;'
            f'border:1px solid {colour}">{escape(piece.replace(" ", "·"))}</span>'
        )
    return f'<div style="line-height:1.9;font-family:monospace">{"".join(boxes)}</div>'


def merge_frame(merges: int) -> tuple[str, str]:
    """``SAMPLE`` after so many merges; a frame for ``explore``."""
    tokenizer = first_merges(sample_tokenizer(), merges)
    count = len(tokenizer.encode(SAMPLE))
    last = (
        f"the last one made “{newest(sample_tokenizer(), merges).replace(' ', '·')}”, "
        if merges
        else ""
    )
    told = f"{merges} merges, {last}{count} tokens for {len(SAMPLE.encode())} bytes"
    return f"<p>{escape(told)}</p>{tokens_html(tokenizer, SAMPLE)}", f"{told}."


def opening(caption: str = "") -> Html:
    """Two documents, their tokens, the row that they fill, and what is cut away."""
    texts = ("The cat sat.", "Rain in Spain")
    tokens = (("bos", "The", "·cat", "·sat", "."), ("bos", "R", "ain", "·in", "·Sp", "ain"))
    room, drawn, placed = 9, [], 0
    for number, (text, pieces) in enumerate(zip(texts, tokens, strict=True)):
        y = 68 * number
        drawn.append(words(8, y + 18, text))
        for i, piece in enumerate(pieces):
            drawn += _token(8 + 42 * i, y + 26, piece, number)
            drawn += _token(8 + 42 * placed, 168, piece, number, cut=placed >= room)
            placed += 1
    for y, first, name in ((212, 0, "inputs"), (240, 1, "targets")):
        left, right = 8 + 42 * first, 8 + 42 * (first + room - 1) - 4
        drawn += [
            path(f"M{left} {y}H{right}", PAINT[5], 3),
            words((left + right) / 2, y + 18, f"{name}: T = {room - 1}", "middle", 15),
        ]
    drawn += [
        words(8, 160, f"a row: T + 1 = {room}", size=15),
        words(8 + 42 * room, 216, "cut away", size=15),
    ]
    alt = (
        "Two documents of 5 and 6 tokens, each with one that says where it begins. Together they "
        "fill a row of 9 tokens; the last 2 of the second are cut away. Inputs are the row's first "
        "8 tokens, targets its last 8."
    )
    return drawing.opening(drawn, 264, alt, caption)


def _token(x: float, y: float, text: str, number: int, cut: bool = False) -> list[str]:
    look = {"stroke_dasharray": "4 3"} if cut else {"fill_opacity": ".22"}
    fill = "none" if cut else PAINT[number]
    box = rect(x, y, 38, 28, fill, stroke=PAINT[number], rx=4, **look)
    return [box, words(x + 19, y + 19, text, "middle", 14)]


def vocabulary_figure(
    tokenizer: Tokenizer, texts: Sequence[str], sizes: Sequence[int], caption: str = ""
) -> Html:
    """Arithmetic a byte over the vocabulary, at three depths, each as a part of its least."""
    told = []
    with plotting(height=2.8) as (fig, axes):
        for depth in (6, 12, 24):
            costs = [row[3] for row in vocabulary_rows(tokenizer, texts, sizes, depth)]
            least = min(costs)
            axes.plot(sizes, [cost / least for cost in costs], label=f"depth {depth}")
            told.append(f"depth {depth} at {sizes[costs.index(least)]:,}")
        axes.set(xlabel="vocabulary", ylabel="FLOPs a byte (least: 1)", xscale="log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        axes.minorticks_off()
        legend(fig)
    alt = f"Three curves, each lowest in this figure at: {'; '.join(told)}."
    return show(fig, alt, caption)


def rows_frame(way: str, row_length: int) -> tuple[Figure, str]:
    """The first rows of a way of laying them, and what it loses; a frame for ``explore``."""
    lengths = web_lengths(SIMULATED // 3)
    laid = list(WAYS[way](lengths, row_length + 1))
    found = shares(laid, lengths)
    middle = laid[len(laid) // 2 :]
    told = (
        f"{found.cropped:.1%} cropped, {found.beheaded:.1%} beheaded, {found.padding:.1%} padding"
    )
    with plotting(6.2, 3.0) as (fig, axes):
        for place, row in enumerate(islice(middle, SHOWN)):
            at = 0
            for document, start, count in row:
                empty = document == PADDING
                axes.barh(
                    place, count, left=at, height=0.8, edgecolor="white", linewidth=0.6,
                    color="none" if empty else COLOURS[document % 5],
                    hatch="////" if start else None, alpha=0.9,
                )  # fmt: skip
                at += count
        axes.set(xlim=(0, row_length + 1), yticks=[], xlabel="tokens")
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title(told)
    return fig, f"{way}, rows of {row_length:,} tokens: {told}."


def buffer_frame(buffer: int, refill: int) -> tuple[Figure, str]:
    """Best fit's buffer silts up; a frame for ``explore``."""
    found = filling(web_lengths(SIMULATED), ROW, buffer, refill)
    with plotting(height=2.5) as (fig, axes):
        axes.plot(found.rows, found.long)
        axes.axhline(
            sum(n > ROW for n in web_lengths(SIMULATED)) / SIMULATED, color=COLOURS[1],
            linestyle="-",
        )  # fmt: skip
        axes.set(xlabel="rows packed", ylabel="longer than a row", ylim=(-0.02, 1.03))
        axes.set_title(f"cropped in the end: {found.cropped:.1%}")
    last = found.long[-1] if found.long else 0.0
    return fig, (
        f"Buffer of {buffer:,}, refilled {refill} at a time: at last {last:.0%} of what waits is "
        f"longer than a row, and {found.cropped:.1%} of the tokens are cropped."
    )


def place_figure(caption: str = "") -> Html:
    """Which places of a document are trained on at all, by three ways."""
    lengths = web_lengths(SIMULATED // 2)
    told = []
    with plotting(height=2.7) as (fig, axes):
        ways = ("one stream", "greedy", "best fit")
        for way, style, colour in zip(ways, DASHES, COLOURS, strict=False):
            kept = kept_by_place(WAYS[way](lengths, ROW), lengths, EDGES)
            axes.stairs(
                kept, EDGES, baseline=None, label=way, linestyle=style, linewidth=1.9, color=colour
            )
            told.append(f"{way}, {kept[6]:.0%} from {EDGES[6]:,} to {EDGES[7]:,}")
        axes.axvline(ROW, color=COLOURS[5], linewidth=1, linestyle="-")
        axes.set(xlabel="place in the document (tokens)", ylabel="trained on", ylim=(-0.03, 1.05))
        legend(fig)
    alt = f"Trained on, by place: {'; '.join(told)}; beyond a row none but of the stream."
    return show(fig, alt, caption)


def reported_against_lengths() -> list[list[str]]:
    """Rows: what was cropped as reported, and what log-normal lengths of the same floor give."""
    lengths = web_lengths(SIMULATED)
    simulated = {name: shares(way(lengths, ROW), lengths) for name, way in WAYS.items()}
    return [
        ["behind the first row", f"{CROPPED_FLOOR:.1%}", f"{floor(lengths):.1%}", "fitted"],
        ["greedy", f"{CROPPED_GREEDY:.1%}", f"{simulated['greedy'].cropped:.1%}", ""],
        ["best fit", f"{CROPPED:.1%}", f"{simulated['best fit'].cropped:.1%}", ""],
    ]
