"""Best-fit packing: rows of whole documents, and no padding.

Every row begins with a document. Into each row goes the longest document that still fits, again
and again; when none fits, the shortest is cropped to fill the row, and its rest is dropped (about
35% of all tokens at T = 2048). Related: Ding et al., "Fewer truncations improve language modeling"
(arXiv 2404.10830). Chapter: tokens_and_rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import chain, count
from operator import itemgetter
from typing import Any, NamedTuple


class Document(NamedTuple):
    """Tokens, in a list or an array, and whatever says where they are from."""

    tokens: Any
    tag: Any


class Buffer:
    """Documents sorted by length: the longest that fits, and the shortest, by bisection.

    Of documents of one length the earliest comes out first.
    """

    def __init__(self) -> None:
        self._documents: list[tuple[int, int, Document]] = []  # (length, arrival, document)
        self._arrivals = count()

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, document: Document) -> None:
        """Put a document in."""
        insort(self._documents, (len(document.tokens), next(self._arrivals), document))

    def take(self, room: int) -> Document:
        """Take out the longest document of at most ``room`` tokens, else the shortest of all."""
        fit = bisect_left(self._documents, (room + 1,))  # so many
        length = self._documents[max(fit - 1, 0)][0]
        return self._documents.pop(bisect_left(self._documents, (length,)))[2]

    def in_order(self) -> list[Document]:
        """All documents, earliest first."""
        return [document for _, _, document in sorted(self._documents, key=itemgetter(1))]

    def copy(self) -> Buffer:
        """As it stands now; the documents are the same."""
        other = copy(self)
        other._documents = self._documents.copy()
        return other


def pack(
    batches: Iterable[list[Document]],
    row_capacity: int,
    buffer_size: int = 1000,
    buffer: Buffer | None = None,
) -> Iterator[list[Any]]:
    """Rows of exactly ``row_capacity`` tokens, each as its pieces, best fit first.

    Before each choice the ``buffer`` is refilled, one batch at a time, while it holds fewer than
    ``buffer_size`` documents; empty ones are skipped. A stream that ends is packed until a row
    cannot be filled any more: what that last, partial row would hold is dropped.
    """
    stream = iter(batches)
    buffer = Buffer() if buffer is None else buffer
    while True:
        row: list[Any] = []
        room = row_capacity
        while room > 0:
            while len(buffer) < buffer_size and (batch := next(stream, None)) is not None:
                for document in filter(lambda document: len(document.tokens), batch):
                    buffer.add(document)
            if not len(buffer):
                return
            row.append(buffer.take(room).tokens[:room])
            room -= len(row[-1])
        yield row


def pack_rows(
    batches: Iterable[list[list[int]]], row_capacity: int, buffer_size: int = 1000
) -> Iterator[list[int]]:
    """``pack`` of batches of tokenized documents; a batch is what one refill adds."""
    tagged = ([Document(tokens, None) for tokens in batch] for batch in batches)
    return (list(chain(*row)) for row in pack(tagged, row_capacity, buffer_size))
