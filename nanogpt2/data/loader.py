"""Batches for training and validation: tokenized ahead, packed, and resumable exactly.

A batch comes with a state, a small dictionary for JSON, from which a new loader continues with the
very next batch: it holds the position in the shards and, for each document still in the packing
buffer, where that document stands. Chapter: data.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanogpt2.data.dealing import UNITS, Deal, Unit
from nanogpt2.data.packing import Document, Packer
from nanogpt2.data.shards import count_documents, find_shards, open_shard, read_row_group
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError

REFILL = 128
"""documents of this rank in one refill of the packing buffer, at most; all of one row group"""
AHEAD = 8
"""refills that are tokenized ahead"""
OTHER_SHARDS = "the checkpoint was made with other data shards; give the same data folder"


class Place(NamedTuple):
    """Where a document, or the next refill, stands."""

    epoch: int
    shard: int
    row_group: int
    document: int


class TokenLoader:
    """Iterates (inputs, targets, state) for ever; both tensors are (B, T) int64 on ``device``.

    Args:
        data: folder of shards, or the shards themselves in the order in which to read them.
        tokenizer: turns documents into ids; each document starts with ``<|bos|>``.
        batch_size: rows B.
        sequence_len: T; a packed row has T + 1 tokens, targets are the inputs one token on.
        split: "train" or "val", which is what is held out; of a folder.
        rank, world_size: which documents are this loader's, as ``Deal`` says.
        state: continue from a state that came with a batch. From that of another rank or world size
            go on with the documents after its place, dealt out anew, without those buffered.
        threads: tokenizing threads.
        buffer_size: documents in the packing buffer.

    Raises UserError for a shard that cannot be read, a state that does not fit, or no documents.
    """

    def __init__(
        self,
        data: Path | str | Sequence[Path | str],
        tokenizer: Tokenizer,
        batch_size: int,
        sequence_len: int,
        split: str = "train",
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        state: dict[str, Any] | None = None,
        threads: int = 2,
        buffer_size: int = 1000,
    ) -> None:
        if isinstance(data, (str, Path)):
            shards = find_shards(data)
            data = shards.held_out if split == "val" else shards.train
        self.paths = [Path(path) for path in data]
        self.tokenizer = tokenizer
        self.batch_size, self.sequence_len = batch_size, sequence_len
        self.device = torch.device(device)
        self.threads = threads
        self._open = lru_cache(maxsize=1)(open_shard)  # a shard is read group by group
        self._counts = [count_documents(path) for path in self.paths]
        if not any(map(sum, self._counts)):
            names = ", ".join(str(path) for path in self.paths[:3]) or "an empty list of shards"
            raise UserError(f"there is no document in {names}; give shards with text in them")
        self.next_place = Place(0, 0, 0, 0)
        buffered: list[Place] = []
        unit: Unit | None = None
        if state is not None:
            self.next_place, buffered, unit = self._restore(state, rank, world_size)
        self.deal = Deal(self._counts, rank, world_size, unit)
        if self.deal.leaves_nothing():
            raise UserError(OTHER_SHARDS)
        self.packer: Packer[Place] = Packer(self._tokenized(), sequence_len + 1, buffer_size)
        for document in self._documents_at(buffered):
            self.packer.buffer.add(document)

    def state(self) -> dict[str, Any]:
        """From here a new loader hands out the batch after the last one."""
        return {
            "next": list(self.next_place),
            "buffer": [list(document.tag) for document in self.packer.buffer.in_order()],
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

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
        while True:
            rows = [self.packer.row() for _ in range(self.batch_size)]
            batch = torch.tensor(rows, dtype=torch.long)
            if self.device.type == "cuda":
                # torch's pinned-memory pool holds the block until the copy has been read
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            else:
                batch = batch.to(self.device)
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), self.state()

    def _restore(
        self, state: dict[str, Any], rank: int, world_size: int
    ) -> tuple[Place, list[Place], Unit | None]:
        """The next place, those buffered, and what is dealt (None: what is fair)."""
        try:
            place, *buffered = (Place(*entry) for entry in (state["next"], *state["buffer"]))
            if not all(isinstance(n, int) and n >= 0 for p in (place, *buffered) for n in p):
                raise ValueError
            same = (state["rank"], state["world_size"]) == (rank, world_size)
            # states of earlier versions do not say: all dealt row groups
            unit = state.get("unit", "row group")
            if unit not in (*UNITS, None):
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(
                "the loader's state in the checkpoint is damaged; resume from another checkpoint"
            ) from None
        if not all(p.shard < len(self.paths) for p in (place, *buffered)):
            raise UserError(OTHER_SHARDS)
        for _, shard, row_group, document in buffered:
            groups = self._counts[shard]
            if row_group >= len(groups) or document >= groups[row_group]:
                raise UserError(
                    f"{self.paths[shard]} is not the shard that the checkpoint was made with"
                )
        return (place, buffered, unit) if same else (place, [], None)

    def _read(self, shard: int, row_group: int, rows: Sequence[int]) -> list[str]:
        path = self.paths[shard]
        return read_row_group(self._open(path), row_group, path, rows)

    def _shares(self) -> Iterator[tuple[Place, range]]:
        """Row groups, and which of their documents are this rank's and still to come, for ever."""
        start = self.next_place
        for epoch in count(start.epoch):
            for shard, groups in enumerate(self._counts):
                for row_group in range(len(groups)):
                    place = Place(epoch, shard, row_group, 0)
                    if place[:3] < start[:3]:
                        continue
                    rows = self.deal.rows(epoch, shard, row_group)
                    if place[:3] == start[:3]:
                        rows = rows[bisect_left(rows, start.document) :]
                    if rows:
                        yield place, rows

    def _refills(self) -> Iterator[tuple[list[Place], list[str]]]:
        """Documents and their places, for ever."""
        for group, rows in self._shares():
            texts = self._read(group.shard, group.row_group, rows)
            for i in range(0, len(rows), REFILL):
                places = [group._replace(document=row) for row in rows[i : i + REFILL]]
                yield places, texts[i : i + REFILL]

    def _encode(self, places: list[Place], texts: list[str], threads: int) -> list[Document[Place]]:
        rows = self.tokenizer.encode_batch(texts, prepend_bos=True, threads=threads)
        return [Document(tokens, place) for tokens, place in zip(rows, places, strict=True)]

    def _tokenized(self) -> Iterator[list[Document[Place]]]:
        """Refills of the packing buffer, tokenized ahead on threads, in order."""
        waiting: deque[Future[list[Document[Place]]]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tokenize")
        try:
            for places, texts in self._refills():
                waiting.append(pool.submit(self._encode, places, texts, 1))
                if len(waiting) > AHEAD:
                    documents = waiting.popleft().result()
                    last = documents[-1].tag
                    self.next_place = last._replace(document=last.document + 1)
                    yield documents
        finally:
            # Without waiting: a loader may be cleared away by the garbage collector while another
            # one starts its threads, who would then wait for each other for ever.
            pool.shutdown(wait=False, cancel_futures=True)

    def _documents_at(self, places: list[Place]) -> list[Document[Place]]:
        """Read and tokenize again the documents that stood in the buffer."""
        wanted: dict[tuple[int, int], set[int]] = {}
        for _, shard, row_group, document in places:
            wanted.setdefault((shard, row_group), set()).add(document)
        found: dict[tuple[int, ...], str] = {}
        for (shard, row_group), documents in sorted(wanted.items()):
            rows = sorted(documents)
            for row, text in zip(rows, self._read(shard, row_group, rows), strict=True):
                found[shard, row_group, row] = text
        return self._encode(places, [found[place[1:]] for place in places], self.threads)
