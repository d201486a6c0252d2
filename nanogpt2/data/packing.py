"""Best-fit packing: rows of whole documents, and no padding.

Every row begins with a document. Into each row goes the longest document that still fits, again
and again; when none fits, the shortest is cropped to fill the row, and its rest is dropped (about
35% of all tokens at T = 2048). Related: Ding et al., "Fewer truncations improve language modeling"
(arXiv 2404.10830). Chapter: data.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import count
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

Tag = TypeVar("Tag")


class Document(NamedTuple, Generic[Tag]):
    """Tokens and whatever says where they are from."""

    tokens: list[int]
    tag: Tag


class Buffer(Generic[Tag]):
    """Documents sorted by length: the longest that fits, and the shortest, by bisection.

    Of documents of one length the earliest comes out first.
    """

    def __init__(self) -> None:
        self._documents: list[tuple[int, int, Document[Tag]]] = []  # (length, arrival, document)
        self._arrivals = count()

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, document: Document[Tag]) -> None:
        """Put a document in."""
        insort(self._documents, (len(document.tokens), next(self._arrivals), document))

    def take(self, room: int) -> Document[Tag]:
        """Take out the longest document of at most ``room`` tokens, else the shortest of all."""
        fit = bisect_left(self._documents, (room + 1,))  # so many
        length = self._documents[max(fit - 1, 0)][0]
        return self._documents.pop(bisect_left(self._documents, (length,)))[2]

    def in_order(self) -> list[Document[Tag]]:
        """All documents, earliest first."""
        return [document for _, _, document in sorted(self._documents, key=itemgetter(1))]


class Packer(Generic[Tag]):
    """Packs documents into rows of ``capacity`` tokens, refilling a buffer from ``batches``.

    ``batches`` yields lists of documents; before each choice the buffer is refilled, one batch at
    a time, while it holds fewer than ``buffer_size`` documents.
    """

    def __init__(
        self, batches: Iterator[list[Document[Tag]]], capacity: int, buffer_size: int = 1000
    ) -> None:
        self.batches, self.capacity, self.buffer_size = batches, capacity, buffer_size
        self.buffer: Buffer[Tag] = Buffer()
        self._exhausted = False

    def _refill(self) -> None:
        while len(self.buffer) < self.buffer_size and not self._exhausted:
            batch = next(self.batches, None)
            if batch is None:
                self._exhausted = True
                return
            for document in batch:
                if document.tokens:
                    self.buffer.add(document)

    def row(self) -> list[int] | None:
        """The next row, or None once what is left cannot fill one (its documents are dropped)."""
        row: list[int] = []
        while len(row) < self.capacity:
            self._refill()
            if not len(self.buffer):
                return None
            room = self.capacity - len(row)
            row += self.buffer.take(room).tokens[:room]
        return row


def pack_rows(
    batches: Iterable[list[list[int]]], row_capacity: int, buffer_size: int = 1000
) -> Iterator[list[int]]:
    """Rows of exactly ``row_capacity`` tokens from batches of tokenized documents.

    A batch is what one refill adds. A stream that ends is packed until a row cannot be filled any
    more; the documents of that last, partial row are dropped. Empty documents are skipped.
    """
    tagged = ([Document(tokens, None) for tokens in batch] for batch in batches)
    packer = Packer(tagged, row_capacity, buffer_size)
    while (row := packer.row()) is not None:
        yield row
