"""Rows and batches: sequences that begin alike share one row, rows of like length one batch.

A row is a shared beginning and, behind it, the different endings side by side. The four choices of
a question, or the questions about one story, cost their common tokens once. Chapter: core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nanogpt2.evals.core.prompts import Option, Tokens, shared_length

MIN_SHARED = 16
"""tokens that sharing must save: less is not worth an ending's masked attention"""
MAX_ENDINGS = 1024
"""tokens of endings in one row; their attention mask grows with it"""


@dataclass(frozen=True)
class Job:
    """One option of one example, to be scored."""

    key: tuple[int, int, int]
    """task, example, option"""
    option: Option

    @property
    def inputs(self) -> Tokens:
        """What the model reads: all but the last token, which is only predicted."""
        return self.option.tokens[:-1]


@dataclass
class Row:
    """Jobs whose inputs begin with the same ``prefix``; equal inputs share one ending."""

    prefix: Tokens
    jobs: list[Job]
    endings: list[Tokens] = field(default_factory=list)
    ending_of: list[int] = field(default_factory=list)
    """for each job the index of its ending, -1 where its inputs end within the prefix"""

    def __post_init__(self) -> None:
        known: dict[bytes, int] = {}
        for job in self.jobs:
            rest = job.inputs[len(self.prefix) :]
            if len(rest) == 0:
                self.ending_of.append(-1)
                continue
            key = rest.tobytes()
            if key not in known:
                known[key] = len(self.endings)
                self.endings.append(rest)
            self.ending_of.append(known[key])

    @property
    def endings_length(self) -> int:
        """Tokens behind the prefix."""
        return sum(map(len, self.endings))


def share_prefixes(jobs: Iterable[Job]) -> list[Row]:
    """Group jobs so that the tokens to compute are few: neighbours in sorted order share."""
    # big-endian bytes sort as the tokens do
    ordered = sorted(jobs, key=lambda job: job.inputs.astype(">i4").tobytes())
    rows: list[Row] = []
    group: list[Job] = []
    prefix = total = 0  # of the group: length of the shared beginning, tokens of all its inputs
    for job in ordered:
        length = len(job.inputs)
        if group:
            shared = shared_length([group[-1].inputs[:prefix], job.inputs])
            grown = len(group) + 1
            saved = (len(group) * shared) - (len(group) - 1) * prefix
            endings = total + length - grown * shared
            if (saved >= MIN_SHARED and endings <= MAX_ENDINGS) or _same(group, job):
                group.append(job)
                prefix, total = shared, total + length
                continue
            rows.append(Row(group[0].inputs[:prefix], group))
        group, prefix, total = [job], length, length
    if group:
        rows.append(Row(group[0].inputs[:prefix], group))
    return rows


def _same(group: Sequence[Job], job: Job) -> bool:
    """Whether ``job`` reads exactly what the group's last one does: it then costs nothing."""
    return np.array_equal(group[-1].inputs, job.inputs)


@dataclass
class Batch:
    """Rows padded to common widths: columns of prefixes (P), then columns of endings (S).

    Targets name what is scored: the token ``target`` is predicted at ``column`` of ``row``.
    """

    rows: list[Row]
    prefix_width: int
    ending_width: int
    tokens: np.ndarray
    """(B, P + S) int64, padded with 0"""
    prefix_lengths: np.ndarray
    """(B,)"""
    segments: np.ndarray
    """(B, S): which ending a column belongs to, -1 for padding"""
    offsets: np.ndarray
    """(B, S): place of a column within its ending"""
    flat: np.ndarray
    """(N,) row * (P + S) + column of every scored token"""
    targets: np.ndarray
    """(N,)"""
    spans: list[tuple[tuple[int, int, int], int, int]]
    """job key, begin and end of its scored tokens in ``flat``"""

    @property
    def size(self) -> int:
        """Columns computed, padding included."""
        return self.tokens.size


def build_batch(
    rows: Sequence[Row], prefix_width: int, ending_width: int, row_count: int | None = None
) -> Batch:
    """Lay out rows; ``row_count`` more than there are pads with empty rows."""
    height, width = row_count or len(rows), prefix_width + ending_width
    tokens = np.zeros((height, width), dtype=np.int64)
    lengths = np.ones(height, dtype=np.int64)
    segments = np.full((height, ending_width), -1, dtype=np.int64)
    offsets = np.zeros((height, ending_width), dtype=np.int64)
    flat: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    spans = []
    count = 0
    for r, row in enumerate(rows):
        length = len(row.prefix)
        tokens[r, :length] = row.prefix
        lengths[r] = length
        begins, column = [], 0
        for e, ending in enumerate(row.endings):
            begins.append(prefix_width + column)
            tokens[r, prefix_width + column : prefix_width + column + len(ending)] = ending
            segments[r, column : column + len(ending)] = e
            offsets[r, column : column + len(ending)] = np.arange(len(ending))
            column += len(ending)
        for job, e in zip(row.jobs, row.ending_of, strict=True):
            option = job.option
            places = np.arange(option.start - 1, len(option.tokens) - 1)
            if e >= 0:
                places = np.where(places < length, places, begins[e] + places - length)
            flat.append(r * width + places)
            targets.append(option.tokens[option.start :])
            spans.append((job.key, count, count + len(places)))
            count += len(places)
    return Batch(
        list(rows),
        prefix_width,
        ending_width,
        tokens,
        lengths,
        segments,
        offsets,
        np.concatenate(flat).astype(np.int64),
        np.concatenate(targets).astype(np.int64),
        spans,
    )


def plan_batches(rows: Sequence[Row], max_tokens: int, buckets: bool) -> list[Batch]:
    """Rows sorted by length, cut into batches of at most ``max_tokens`` columns (one row at least).

    With ``buckets`` widths are rounded up to one of four steps an octave and batches filled up to
    a fixed height for each width, so that a compiled model sees few shapes.
    """

    def widths(row: Row) -> tuple[int, int]:
        p, s = len(row.prefix), row.endings_length
        return (bucket(p), bucket(s)) if buckets else (p, s)

    pending = sorted(rows, key=lambda row: (row.endings_length > 0, *widths(row)), reverse=True)
    batches = []
    first = 0
    while first < len(pending):
        P, S = widths(pending[first])
        last = first + 1
        while last < len(pending) and (pending[last].endings_length > 0) == (S > 0):
            p, s = widths(pending[last])
            if (last + 1 - first) * (max(P, p) + max(S, s)) > max_tokens or (buckets and p != P):
                break
            P, S, last = max(P, p), max(S, s), last + 1
        height = None
        if buckets:
            height = max(last - first, min(bucket(last - first), max_tokens // (P + S)))
        batches.append(build_batch(pending[first:last], P, S, height))
        first = last
    return batches


def bucket(length: int) -> int:
    """``length`` rounded up to 4/4, 5/4, 6/4 or 7/4 of a power of two, 16 at least, 0 kept."""
    if length == 0:
        return 0
    step = max(16, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step
