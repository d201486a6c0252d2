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
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from nanogpt2.data.dealing import Deal, Unit, furthest_behind
from nanogpt2.data.packing import Buffer, Document, pack
from nanogpt2.data.shards import count_documents, find_shards, open_shard, read_row_group
from nanogpt2.data.source import Text, by_source
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError

REFILL = 128
"""documents of this rank in one refill of the packing buffer, at most; all of one row group"""
READY = 4
"""batches that ``ahead`` keeps ready"""
Count = Annotated[int, Field(strict=True, ge=0)]
OTHER_SHARDS = "the checkpoint was made with other data shards; give the same data folder"


class Place(NamedTuple):
    """Where a document, or the next refill, stands."""

    epoch: Count
    shard: Count
    row_group: Count
    document: Count


@dataclass(frozen=True)
class _State:
    """What a batch's state says."""

    next: Place
    buffer: list[Place]
    rank: Count
    world_size: Count
    unit: Unit | None


_STATE = TypeAdapter(_State)
Item = TypeVar("Item")


class TokenLoader:
    """Iterates (inputs, targets, state) for ever; both tensors are (B, T) int64 on ``device``.

    ``state()`` is the batch's; made when called, for it is asked of few.

    Args:
        data: folder of shards, of which those for training are read; or the shards themselves, in
            the order in which to read them.
        tokenizer: turns documents into ids; each document starts with ``<|bos|>``.
        batch_size: rows B.
        sequence_len: T; a packed row has T + 1 tokens, targets are the inputs one token on.
        rank, world_size: which documents are this loader's, as ``Deal`` says.
        state: continue from a state that came with a batch. From that of another rank or world size
            go on with the documents after its place, dealt out anew, without those buffered.
        buffer_size: documents in the packing buffer.

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
    ) -> None:
        paths = find_shards(data).train if isinstance(data, (str, Path)) else data
        self.paths = [Path(path) for path in paths]
        self.tokenizer = tokenizer
        self.batch_size, self.sequence_len = batch_size, sequence_len
        self.device = torch.device(device)
        self._open = lru_cache(maxsize=1)(open_shard)  # a shard is read group by group
        self._counts = [count_documents(path) for path in self.paths]
        begin = _State(Place(0, 0, 0, 0), [], rank, world_size, None)
        if state is not None:
            begin = self._restore(state, rank, world_size)
        self.next_place = begin.next
        self.deal = Deal(self._counts, rank, world_size, begin.unit)
        if self.deal.leaves_nothing():
            names = ", ".join(str(path) for path in self.paths[:3]) or "an empty list of shards"
            raise UserError(f"there is no document in {names} for rank {rank}; give others")
        self.buffer: Buffer[Place] = Buffer()
        for document in self._documents_at(begin.buffer):
            self.buffer.add(document)
        self.rows = pack(self._refills(), sequence_len + 1, buffer_size, self.buffer)

    def state(self) -> dict[str, Any]:
        """From here a new loader hands out the batch after the last one."""
        return self._state(self.next_place, self.buffer)

    def _state(self, next_place: Place, buffer: Buffer[Place]) -> dict[str, Any]:
        return {
            "next": list(next_place),
            "buffer": [list(document.tag) for document in buffer.in_order()],
            "rank": self.deal.rank,
            "world_size": self.deal.world_size,
            "unit": self.deal.unit,
        }

    def describe(self) -> str:
        """How documents are dealt out over the ranks, in a sentence."""
        return self.deal.describe()

    @property
    def epoch(self) -> int:
        """How many times the shards have been read to their end."""
        return self.next_place.epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Callable[[], dict[str, Any]]]]:
        while True:
            pieces = [piece for row in islice(self.rows, self.batch_size) for piece in row]
            batch = self._on_device(torch.from_numpy(np.concatenate(pieces))).long()
            batch = batch.view(self.batch_size, -1)
            state = partial(self._state, self.next_place, self.buffer.copy())
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), state

    def _on_device(self, tokens: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tokens.to(self.device)
        with torch.cuda.device(self.device):  # a thread begins with the first GPU
            # torch's pinned-memory pool holds the block until the copy has been read
            return tokens.pin_memory().to(self.device, non_blocking=True)

    def _restore(self, state: Any, rank: int, world_size: int) -> _State:
        """Where to continue: what ``state`` says, or after its place where it is of other ranks."""
        try:
            known = _STATE.validate_python(state)
        except ValidationError:
            raise UserError(
                "the loader's state in the checkpoint is damaged; resume from another checkpoint"
            ) from None
        sizes = {(s, g): n for s, groups in enumerate(self._counts) for g, n in enumerate(groups)}
        there = all(place.document < sizes.get(place[1:3], 0) for place in known.buffer)
        if not there or known.next.shard >= len(self.paths):
            raise UserError(OTHER_SHARDS)
        same = (known.rank, known.world_size) == (rank, world_size)
        return known if same else _State(known.next, [], rank, world_size, None)

    def _read(self, shard: int, row_group: int, rows: Sequence[int]) -> list[str]:
        path = self.paths[shard]
        return read_row_group(self._open(path), row_group, path, rows)

    def _refills(self) -> Iterator[list[Document[Place]]]:
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

    def _encode(self, places: list[Place], texts: list[str]) -> list[Document[Place]]:
        rows = self.tokenizer.encode_batch(texts, prepend_bos=True, threads=2)
        arrays = (np.array(tokens, dtype=np.int32) for tokens in rows)
        return [Document(tokens, place) for tokens, place in zip(arrays, places, strict=True)]

    def _documents_at(self, places: list[Place]) -> list[Document[Place]]:
        """Read and tokenize again the documents that stood in the buffer."""
        found: dict[tuple[int, ...], str] = {}
        wanted = sorted({place[1:] for place in places})
        for (shard, row_group), documents in groupby(wanted, key=itemgetter(0, 1)):
            rows = [row for _, _, row in documents]
            for row, text in zip(rows, self._read(shard, row_group, rows), strict=True):
                found[shard, row_group, row] = text
        return self._encode(places, [found[place[1:]] for place in places])


class MixedLoader:
    """A ``TokenLoader`` of each source of a mixture, of which rows are taken by weights.

    All rows have as many tokens, so that each rank learns from each source its share of them, to a
    row. Its state holds that of every source, and the rows that each has given.

    Args:
        data: the shards of each source.
        weights: of each, positive.
        state, batch_size, options: as ``TokenLoader`` takes them.
    """

    def __init__(
        self,
        data: Sequence[Sequence[Path]],
        weights: Sequence[float],
        tokenizer: Tokenizer,
        batch_size: int,
        sequence_len: int,
        state: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        known = [None] * len(data) if state is None else state.get("sources")
        self.given: list[int] = [0] * len(data) if state is None else list(state.get("given", ()))
        if known is None or not len(known) == len(self.given) == len(data):
            raise UserError(OTHER_SHARDS)
        self.weights, self.batch_size = weights, batch_size
        self.loaders = [
            TokenLoader(paths, tokenizer, batch_size, sequence_len, state=own, **options)
            for paths, own in zip(data, known, strict=True)
        ]

    def describe(self) -> str:
        """Shares and sizes of the sources, in a sentence."""
        parts = zip(self.weights, self.loaders, strict=True)
        return "; ".join(f"{weight:.1%} of the rows: {own.describe()}" for weight, own in parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Callable[[], dict[str, Any]]]]:
        while True:
            rows = []
            for _ in range(self.batch_size):
                n = furthest_behind(self.given, self.weights)
                self.given[n] += 1
                rows.append(np.concatenate(next(self.loaders[n].rows)))
            batch = self.loaders[0]._on_device(torch.from_numpy(np.stack(rows))).long()
            sources = [partial(o._state, o.next_place, o.buffer.copy()) for o in self.loaders]
            state = partial(self._state, sources, list(self.given))
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), state

    @staticmethod
    def _state(sources: Sequence[Callable[[], dict[str, Any]]], given: list[int]) -> dict[str, Any]:
        return {"sources": [state() for state in sources], "given": given}


def load_text(
    text: Text, folder: Path | str, *shape: Any, **options: Any
) -> TokenLoader | MixedLoader:
    """The loader of a run's text in ``folder``, to learn from: of one source, or of a mixture.

    ``shape``: tokenizer, batch size and sequence length; ``options`` as ``TokenLoader`` takes them.
    """
    if text.weights:
        return MixedLoader(by_source(text, folder), text.weights, *shape, **options)
    return TokenLoader(text.paths(folder, "train"), *shape, **options)


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
