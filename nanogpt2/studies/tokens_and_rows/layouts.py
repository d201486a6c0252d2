"""Documents laid into rows in five ways, and what each loses; by lengths alone.

A row is a list of pieces (document, first token, number of tokens); a negative document is padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from operator import length_hint
from statistics import NormalDist, fmean
from typing import NamedTuple

import numpy as np

from nanogpt2.data.packing import Buffer, Document
from nanogpt2.reported import CROPPED_FLOOR

ROW = 2049
"""tokens of a packed row of the records: T + 1"""
MEAN = 1000.0
"""tokens of a document of the simulation, about FineWeb-Edu's"""
REFILL, BUFFER = 128, 1000


class Piece(NamedTuple):
    """Part of a document in a row."""

    document: int
    start: int
    size: int


Row = list[Piece]
PADDING = -1


def flat(lengths: Sequence[int], capacity: int) -> Iterator[Row]:
    """One stream of all documents, cut wherever a row is full."""
    row: Row = []
    room = capacity
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            count = min(room, length - start)
            row.append(Piece(document, start, count))
            start, room = start + count, room - count
            if not room:
                yield row
                row, room = [], capacity


def greedy(lengths: Sequence[int], capacity: int) -> Iterator[Row]:
    """Every row begins with a document; the one that fills it is cropped."""
    row: Row = []
    room = capacity
    for document, length in enumerate(lengths):
        row.append(Piece(document, 0, min(room, length)))
        room -= row[-1].size
        if not room:
            yield row
            row, room = [], capacity


def best_fit(
    lengths: Iterable[int],
    capacity: int,
    buffer: int = BUFFER,
    refill: int = REFILL,
    held: Buffer | None = None,
) -> Iterator[Row]:
    """The package's packing with lengths in place of tokens, which is a thousand times as fast.

    ``held`` is the buffer to use, for those who want to look in.
    """
    held = Buffer() if held is None else held
    stream = iter(enumerate(lengths))
    row: Row = []
    room = capacity
    while True:
        while len(held) < buffer and (batch := list(islice(stream, refill))):
            for document, length in batch:
                held.add(Document(range(length), document))  # type: ignore[arg-type]
        if not len(held):
            return
        taken = held.take(room)
        row.append(Piece(taken.tag, 0, min(room, len(taken.tokens))))
        room -= row[-1].size
        if not room:
            yield row
            row, room = [], capacity


def cut_first(lengths: Sequence[int], capacity: int) -> Iterator[Row]:
    """Best fit of documents that were cut to a row's length before."""
    return best_fit([min(length, capacity) for length in lengths], capacity)


def padded(lengths: Sequence[int], capacity: int) -> Iterator[Row]:
    """Whole documents in their order, cut to a row's length; what is left over is padding."""
    row: Row = []
    room = capacity
    for document, length in enumerate(min(length, capacity) for length in lengths):
        if length > room:
            yield [*row, Piece(PADDING, 0, room)] if room else row
            row, room = [], capacity
        row.append(Piece(document, 0, length))
        room -= length


WAYS: dict[str, Callable[[Sequence[int], int], Iterator[Row]]] = {
    "one stream": flat,
    "greedy": greedy,
    "best fit": best_fit,
    "cut, then best fit": cut_first,
    "padding": padded,
}


class Shares(NamedTuple):
    """Of tokens."""

    cropped: float
    """of those of the documents read: not in any row"""
    beheaded: float
    """of those in rows: without their document's beginning"""
    padding: float
    """of those in rows"""


def shares(rows: Iterable[Row], lengths: Sequence[int]) -> Shares:
    """What a way of laying rows loses."""
    used = beheaded = padding = total = last = 0
    for row in rows:
        for document, start, count in row:
            total += count
            if document == PADDING:
                padding += count
                continue
            used, last = used + count, max(last, document)
            beheaded += count if start else 0
    return Shares(1 - used / sum(lengths[: last + 1]), beheaded / total, padding / total)


def share_rows(lengths: Sequence[int], capacity: int = ROW) -> list[list[str]]:
    """Rows: way, its ``shares``; last, the floor that no whole row can go below."""
    rows = []
    for name, way in WAYS.items():
        found = shares(way(lengths, capacity), lengths)
        rows.append([name, *(f"{share:.1%}" for share in found)])
    return [*rows, ["floor", f"{floor(lengths, capacity):.1%}", "", ""]]


def floor(lengths: Sequence[int], capacity: int = ROW) -> float:
    """Share of tokens that stand behind the first ``capacity`` of their document."""
    many = np.asarray(lengths)
    return float(np.maximum(many - capacity, 0).sum() / many.sum())


@cache
def web_lengths(count: int, mean: float = MEAN) -> tuple[int, ...]:
    """Lengths of documents as on the web: log-normal, ``mean`` on average, with the reported floor.

    The spread is found by bisection, so that ``floor`` is what was reported of FineWeb-Edu.
    """
    low, high = 0.5, 2.5
    for _ in range(50):
        spread = (low + high) / 2
        low, high = (spread, high) if _floor_of(spread, mean) < CROPPED_FLOOR else (low, spread)
    drawn = np.random.default_rng(0).normal(math.log(mean) - spread**2 / 2, spread, count)
    return tuple(int(n) for n in np.maximum(2, np.exp(drawn)))


def _floor_of(spread: float, mean: float) -> float:
    """Of a log-normal law: E[(n - ROW)+] / E[n], as in the price of an option."""
    up = (math.log(mean / ROW) + spread**2 / 2) / spread
    normal = NormalDist()
    return normal.cdf(up) - ROW / mean * normal.cdf(up - spread)


class Filling(NamedTuple):
    """The packing buffer over many rows."""

    rows: list[int]
    long: list[float]
    """share of its documents that are longer than a row, after so many rows"""
    cropped: float
    """share of what was read in the second half of the rows and is in none of them"""


def filling(
    lengths: Sequence[int], capacity: int = ROW, buffer: int = BUFFER, refill: int = REFILL
) -> Filling:
    """What best fit does to its own buffer."""
    held = Buffer()
    rows: list[int] = []
    share: list[float] = []
    half = sum(lengths) // capacity // 3
    begin, stream = 0, iter(lengths)
    for count, _ in enumerate(best_fit(stream, capacity, buffer, refill, held)):
        left = length_hint(stream)
        if not left:  # from here on the buffer runs empty
            break
        if count % max(1, half // 20) == 0 and len(held):
            rows.append(count)
            share.append(fmean(len(one.tokens) > capacity for one in held.in_order()))
        if count == half:
            begin = len(lengths) - left
    return Filling(rows, share, 1 - (count - half) * capacity / sum(lengths[begin:]))


def kept_by_place(rows: Iterable[Row], lengths: Sequence[int], edges: Sequence[int]) -> list[float]:
    """Share of tokens trained on, by their place in their document: between ``edges``."""
    bins = np.asarray(edges)
    had, kept = np.zeros(int(bins[-1]) + 1), np.zeros(int(bins[-1]) + 1)
    begun = set()
    for row in rows:
        for document, start, count in row:
            if document != PADDING:
                begun.add(document)
                kept[start : start + count] += 1
    for document in begun:
        had[: lengths[document]] += 1
    sums = [np.add.reduceat(counts[: bins[-1]], bins[:-1]) for counts in (kept, had)]
    return [float(k / h) if h else math.nan for k, h in zip(*sums, strict=True)]
