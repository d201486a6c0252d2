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

Key = tuple[int, int, int]
"""task, example, option"""


@dataclass(frozen=True)
class Job:
    """One option of one example, to be scored."""

    key: Key
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
            if len(rest) and rest.tobytes() not in known:
                known[rest.tobytes()] = len(self.endings)
                self.endings.append(rest)
            self.ending_of.append(known.get(rest.tobytes(), -1))

    @property
    def endings_length(self) -> int:
        """Tokens behind the prefix."""
        return sum(map(len, self.endings))

    @property
    def size(self) -> int:
        """Columns that it needs."""
        return len(self.prefix) + self.endings_length


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
            # what reads exactly what the one before it does costs nothing
            same = np.array_equal(group[-1].inputs, job.inputs)
            if same or (saved >= MIN_SHARED and endings <= MAX_ENDINGS):
                group.append(job)
                prefix, total = shared, total + length
                continue
            rows.append(Row(group[0].inputs[:prefix], group))
        group, prefix, total = [job], length, length
    if group:
        rows.append(Row(group[0].inputs[:prefix], group))
    return rows


class Batch:
    """Rows padded to common widths: columns of prefixes (P), then columns of endings (S).

    Flattened, ``targets[i]`` is predicted at column ``flat[i]``.
    """

    def __init__(self, rows: Sequence[Row], prefix_width: int, ending_width: int) -> None:
        self.rows, self.prefix_width, self.ending_width = rows, prefix_width, ending_width
        width, height = prefix_width + ending_width, len(rows)
        self.tokens = np.zeros((height, width), dtype=np.int64)
        """(B, P + S), padded with 0"""
        self.prefix_lengths = np.ones(height, dtype=np.int64)
        self.segments = np.full((height, ending_width), -1, dtype=np.int64)
        """(B, S): which ending a column belongs to, -1 for padding"""
        self.offsets = np.zeros((height, ending_width), dtype=np.int64)
        """(B, S): place of a column within its ending"""
        self.spans: list[tuple[Key, int, int]] = []
        """job key, begin and end of its scored tokens in ``flat``"""
        flat: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        count = 0
        for r, row in enumerate(rows):
            length = self.prefix_lengths[r] = len(row.prefix)
            self.tokens[r, :length] = row.prefix
            begins, column = [], 0
            for e, ending in enumerate(row.endings):
                begins.append(prefix_width + column)
                at = slice(column, column + len(ending))
                self.tokens[r, prefix_width:][at] = ending
                self.segments[r, at] = e
                self.offsets[r, at] = np.arange(len(ending))
                column += len(ending)
            for job, e in zip(row.jobs, row.ending_of, strict=True):
                option = job.option
                places = np.arange(option.start - 1, len(option.tokens) - 1)
                if e >= 0:
                    places = np.where(places < length, places, begins[e] + places - length)
                flat.append(r * width + places)
                targets.append(option.tokens[option.start :])
                self.spans.append((job.key, count, count + len(places)))
                count += len(places)
        self.flat = np.concatenate(flat).astype(np.int64)
        """(N,) row * (P + S) + column of every scored token"""
        self.targets = np.concatenate(targets).astype(np.int64)

    @property
    def size(self) -> int:
        """Columns computed, padding included."""
        return self.tokens.size


def plan_batches(rows: Sequence[Row], max_tokens: int) -> list[Batch]:
    """Rows sorted by length, cut into batches of at most ``max_tokens`` columns (or one row)."""

    def widths(row: Row) -> tuple[int, int]:
        return len(row.prefix), row.endings_length

    pending = sorted(rows, key=lambda row: (row.endings_length > 0, *widths(row)), reverse=True)
    batches = []
    first = 0
    while first < len(pending):
        P, S = widths(pending[first])
        last = first + 1
        while last < len(pending) and (pending[last].endings_length > 0) == (S > 0):
            p, s = widths(pending[last])
            if (last + 1 - first) * (max(P, p) + max(S, s)) > max_tokens:
                break
            P, S, last = max(P, p), max(S, s), last + 1
        batches.append(Batch(pending[first:last], P, S))
        first = last
    return batches
