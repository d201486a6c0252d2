"""Batches to train on: tokenized, packed, made ahead, and resumable exactly.

With a batch comes a function that makes its state, a small dictionary for JSON, from which a new
loader continues with the very next batch: it holds the position in the shards and, for each
document still in the packing buffer, where that document stands. Chapter: tokens_and_rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, field
from functools import lru_cache
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from nanogpt2.data.dealing import Deal, Unit, furthest_behind
from nanogpt2.data.packing import Buffer, Document, pack
from nanogpt2.data.shards import count_documents, find_shards, open_shard, read_row_group
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.settings import Natural, from_dict, settings

REFILL = 128
"""documents of this rank in one refill of the packing buffer, at most; all of one row group"""
READY = 4
"""batches that ``ahead`` keeps ready"""
OTHER_SHARDS = "the checkpoint was made with other data shards; give the same data folder"


class Place(NamedTuple):
    """Where a document, or the next refill, stands."""

    epoch: Natural
    shard: Natural
    row_group: Natural
    document: Natural


@settings
class _Position:
    """Where one source goes on."""

    rank: Natural
    world_size: Natural
    next: Place = Place(0, 0, 0, 0)
    buffer: list[Place] = field(default_factory=list)
    unit: Unit | None = None
    """what is dealt out over the ranks; None: what is fair"""


@settings
class _State:
    """What a batch's state says."""

    sources: list[_Position]
    given: list[Natural] = field(default_factory=list)
    """rows of each source so far"""


Item = TypeVar("Item")


class TokenLoader:
    """Iterates (inputs, targets, state) for ever; both tensors are (B, T) int64 on ``device``.

    ``state()`` is the batch's; made when called, for it is asked of few. Of a mixture each rank
    takes rows by the sources' weights, to a row.

    Args:
        data: folder of shards, or of a mixture, of which those for training are read; or the shards
            themselves, in the order in which to read them.
        tokenizer: turns documents into ids; each document starts with ``<|bos|>``.
        batch_size: rows B.
        sequence_len: T; a packed row has T + 1 tokens, targets are the inputs one token on.
        rank, world_size: which documents are this loader's, as ``Deal`` says.
        state: continue from a state that came with a batch. From that of another rank or world size
            go on with the documents after its place, dealt out anew, without those buffered.
        buffer_size: documents in each source's packing buffer.
        weights, sources: of a mixture: by what its sources are taken, and which source each shard
            is of.

    Raises UserError for a shard that cannot be read, a state that does not fit, or no documents.
    """

    def __init__(
        self,
        data: Path | str | Sequence[Path | str],
        tokenizer: Tokenizer,
        batch_size: int,
        sequence_len: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        state: dict[str, Any] | None = None,
        buffer_size: int = 1000,
        weights: Sequence[float] = (),
        sources: Sequence[int] = (),
    ) -> None:
        if isinstance(data, (str, Path)):
            found = find_shards(data)
            data, weights, sources = found.train, found.weights, found.sources
        self.weights = weights or (1.0,)
        self.batch_size, self.device = batch_size, torch.device(device)
        begin = _State([_Position(rank=rank, world_size=world_size)] * len(self.weights))
        if state is not None:
            begin = from_dict(_State, state, "the place in the data")
        self.given = begin.given or [0] * len(self.weights)
        if not len(begin.sources) == len(self.given) == len(self.weights):
            raise UserError(OTHER_SHARDS)
        parts: list[list[Path]] = [[] for _ in self.weights]
        for path, n in zip(data, sources or [0] * len(data), strict=True):
            parts[n].append(Path(path))
        own = (rank, world_size, sequence_len + 1, buffer_size)
        self.sources = [
            Rows(paths, tokenizer, position, *own)
            for paths, position in zip(parts, begin.sources, strict=True)
        ]

    def here(self) -> Callable[[], dict[str, Any]]:
        """What makes the state of this moment, whenever it is called."""
        sources, given = [source.here() for source in self.sources], list(self.given)
        return lambda: {"sources": [make() for make in sources], "given": given}

    def describe(self) -> str:
        """How documents are dealt out over the ranks, and rows over the sources, in a sentence."""
        said = [source.deal.describe() for source in self.sources]
        if len(said) == 1:
            return said[0]
        parts = zip(self.weights, said, strict=True)
        return "; ".join(f"{weight:.1%} of the rows: {words}" for weight, words in parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Callable[[], dict[str, Any]]]]:
        while True:
            rows = []
            for _ in range(self.batch_size):
                n = furthest_behind(self.given, self.weights)
                self.given[n] += 1
                rows.append(np.concatenate(next(self.sources[n].rows)))
            batch = self._on_device(torch.from_numpy(np.stack(rows))).long()
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), self.here()

    def _on_device(self, tokens: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tokens.to(self.device)
        with torch.cuda.device(self.device):  # a thread begins with the first GPU
            # torch's pinned-memory pool holds the block until the copy has been read
            return tokens.pin_memory().to(self.device, non_blocking=True)


class Rows:
    """Packed rows of some shards, for ever, and where they stand.

    Args:
        begin: where to begin; after that place, where it is of other ranks.
        rank, world_size: whose rows.
        capacity: tokens of a row.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        tokenizer: Tokenizer,
        begin: _Position,
        rank: int,
        world_size: int,
        capacity: int,
        buffer_size: int,
    ) -> None:
        self.paths, self.tokenizer = paths, tokenizer
        self._open = lru_cache(maxsize=1)(open_shard)  # a shard is read group by group
        self._counts = counts = [count_documents(path) for path in paths]
        if (begin.rank, begin.world_size) != (rank, world_size):
            begin = _Position(rank, world_size, begin.next)
        self.next_place = begin.next
        self.deal = Deal(counts, rank, world_size, begin.unit)
        if self.deal.leaves_nothing():
            names = ", ".join(str(path) for path in paths[:3]) or "an empty list of shards"
            raise UserError(f"there is no document in {names} for rank {rank}; give others")
        sizes = {(s, g): n for s, groups in enumerate(counts) for g, n in enumerate(groups)}
        there = all(place.document < sizes.get(place[1:3], 0) for place in begin.buffer)
        if not there or begin.next.shard >= len(paths):
            raise UserError(OTHER_SHARDS)
        self.buffer = Buffer()
        for document in self._documents_at(begin.buffer):
            self.buffer.add(document)
        self.rows = pack(self._refills(), capacity, buffer_size, self.buffer)

    def here(self) -> Callable[[], dict[str, Any]]:
        """What makes the state of this moment, whenever it is called."""
        deal, place, buffer = self.deal, self.next_place, self.buffer.copy()

        def make() -> dict[str, Any]:
            waiting = [document.tag for document in buffer.in_order()]
            return asdict(_Position(deal.rank, deal.world_size, place, waiting, deal.unit))

        return make

    def _read(self, shard: int, row_group: int, rows: Sequence[int]) -> list[str]:
        path = self.paths[shard]
        return read_row_group(self._open(path), row_group, path, rows)

    def _refills(self) -> Iterator[list[Document]]:
        """This rank's documents that are still to come, a refill of the buffer at a time."""
        start = self.next_place
        groups = [(s, g) for s, counts in enumerate(self._counts) for g in range(len(counts))]
        for epoch in count(start.epoch):
            for shard, row_group in groups:
                here = (epoch, shard, row_group)
                rows = self.deal.rows(*here) if here >= start[:3] else range(0)
                if here == start[:3]:
                    rows = rows[bisect_left(rows, start.document) :]
                texts = self._read(shard, row_group, rows) if rows else []
                for i in range(0, len(rows), REFILL):
                    places = [Place(*here, row) for row in rows[i : i + REFILL]]
                    self.next_place = Place(*here, places[-1].document + 1)
                    yield self._encode(places, texts[i : i + REFILL])

    def _encode(self, places: list[Place], texts: list[str]) -> list[Document]:
        rows = self.tokenizer.encode_batch(texts, prepend_bos=True, threads=2)
        arrays = (np.array(tokens, dtype=np.int32) for tokens in rows)
        return [Document(tokens, place) for tokens, place in zip(arrays, places, strict=True)]

    def _documents_at(self, places: list[Place]) -> list[Document]:
        """Read and tokenize again the documents that stood in the buffer."""
        found: dict[tuple[int, ...], str] = {}
        wanted = sorted({place[1:] for place in places})
        for (shard, row_group), documents in groupby(wanted, key=itemgetter(0, 1)):
            rows = [row for _, _, row in documents]
            for row, text in zip(rows, self._read(shard, row_group, rows), strict=True):
                found[shard, row_group, row] = text
        return self._encode(places, [found[place[1:]] for place in places])


def ahead(items: Iterable[Item], count: int = READY) -> Iterator[Item]:
    """The same items, ``count`` of them made by a thread before they are asked for.

    Who trains meets no file, no tokenizer and no packing then; what making an item raises, is
    raised where that item would have come.
    """
    stream, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def make() -> Any:
        return next(stream, end)

    try:
        waiting = deque(pool.submit(make) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(make))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
