"""Batches for training and validation: tokenized ahead, packed, and resumable exactly.

Ranks take row groups rank, rank + world size, ... of each shard. A batch comes with a state, a
small dictionary for JSON, from which a new loader continues with the very next batch: it holds the
position in the shards and, for each document still in the packing buffer, where that document
stands. Chapter: data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanogpt2.data.packing import Document, Packer
from nanogpt2.data.shards import find_shards, open_shard, read_row_group
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError

REFILL = 128
"""documents in one refill of the packing buffer, at most; they are of one row group"""
AHEAD = 8
"""refills that are tokenized ahead"""


class Place(NamedTuple):
    """Where a document, or the next refill, stands."""

    epoch: int
    shard: int
    row_group: int
    document: int


class TokenLoader:
    """Iterates (inputs, targets, state) for ever; both tensors are (B, T) int64 on ``device``.

    Args:
        data_dir: folder of shards, or the shards themselves in the order in which to read them.
        tokenizer: turns documents into ids; each document starts with ``<|bos|>``.
        batch_size: rows B.
        sequence_len: T; a packed row has T + 1 tokens, targets are the inputs one token on.
        split: "train" or "val", which is what is held out.
        rank, world_size: which row groups are this loader's.
        state: continue from a state that came with a batch. One from another world size continues
            at the same row group without the buffered documents: right, but not exact.
        threads: tokenizing threads.
        buffer_size: documents in the packing buffer.
    """

    def __init__(
        self,
        data_dir: Path | str | Sequence[Path],
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
        if isinstance(data_dir, (Path, str)):
            shards = find_shards(data_dir)
            self.paths = shards.held_out if split == "val" else shards.train
        else:
            self.paths = list(data_dir)
        self.tokenizer = tokenizer
        self.batch_size, self.sequence_len = batch_size, sequence_len
        self.device = torch.device(device)
        self.rank, self.world_size = rank, world_size
        self.threads = threads
        self.next_place = Place(0, 0, rank, 0)
        buffered: list[Place] = []
        if state is not None:
            self.next_place, buffered = self._restore(state)
        self.packer: Packer[Place] = Packer(self._tokenized(), sequence_len + 1, buffer_size)
        for document in self._documents_at(buffered):
            self.packer.buffer.add(document)

    def state(self) -> dict[str, Any]:
        """From here a new loader hands out the batch after the last one."""
        return {
            "next": list(self.next_place),
            "buffer": [list(document.tag) for document in self.packer.buffer.in_order()],
            "rank": self.rank,
            "world_size": self.world_size,
        }

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

    def _restore(self, state: dict[str, Any]) -> tuple[Place, list[Place]]:
        try:
            place, *buffered = (Place(*entry) for entry in (state["next"], *state["buffer"]))
            if not all(isinstance(n, int) and n >= 0 for p in (place, *buffered) for n in p):
                raise ValueError
            same = (state["rank"], state["world_size"]) == (self.rank, self.world_size)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                "the loader's state in the checkpoint is damaged; resume from another checkpoint"
            ) from None
        if not all(0 <= p.shard < len(self.paths) for p in (place, *buffered)):
            raise UserError(
                "the checkpoint was made with other data shards; give the same data folder"
            )
        if same:
            return place, buffered
        row_group = place.row_group - place.row_group % self.world_size + self.rank
        return Place(place.epoch, place.shard, row_group, 0), []

    def _refills(self) -> Iterator[tuple[Place, Place, list[str]]]:
        """(place of the first document, place after the last, documents), for ever."""
        epoch, first_shard, row_group, start = self.next_place
        while True:
            seen = first_shard > 0 or row_group != self.rank
            for shard in range(first_shard, len(self.paths)):
                file = open_shard(self.paths[shard])
                while row_group < file.num_row_groups:
                    texts = read_row_group(file, row_group, self.paths[shard])
                    seen = seen or bool(texts)
                    for first in range(start, len(texts), REFILL):
                        last = min(first + REFILL, len(texts))
                        after = Place(epoch, shard, row_group, last)
                        yield Place(epoch, shard, row_group, first), after, texts[first:last]
                    row_group, start = row_group + self.world_size, 0
                row_group = self.rank
            if not seen:
                raise UserError(
                    f"rank {self.rank} of {self.world_size} finds no documents: the shards have "
                    "fewer row groups than there are ranks; use fewer ranks or smaller row groups"
                )
            epoch, first_shard = epoch + 1, 0

    def _encode(self, first: Place, texts: list[str]) -> list[Document[Place]]:
        rows = self.tokenizer.encode_batch(texts, prepend_bos=True, threads=1)
        return [
            Document(tokens, first._replace(document=first.document + i))
            for i, tokens in enumerate(rows)
        ]

    def _tokenized(self) -> Iterator[list[Document[Place]]]:
        """Refills of the packing buffer, tokenized ahead on threads, in order."""
        waiting: deque[tuple[Place, Future[list[Document[Place]]]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="tokenize") as pool:
            for first, after, texts in self._refills():
                waiting.append((after, pool.submit(self._encode, first, texts)))
                if len(waiting) > AHEAD:
                    self.next_place, documents = waiting[0][0], waiting.popleft()[1].result()
                    yield documents

    def _documents_at(self, places: list[Place]) -> list[Document[Place]]:
        """Read and tokenize again the documents that stood in the buffer."""
        found: dict[Place, list[str]] = {}
        for place in places:
            group = place._replace(epoch=0, document=0)
            if group not in found:
                path = self.paths[place.shard]
                file = open_shard(path)
                if place.row_group >= file.num_row_groups:
                    raise UserError(f"{path} is not the shard that the checkpoint was made with")
                found[group] = read_row_group(file, place.row_group, path)
        texts: list[str] = []
        for place in places:
            documents = found[place._replace(epoch=0, document=0)]
            if place.document >= len(documents):
                raise UserError(
                    f"{self.paths[place.shard]} is not the shard that the checkpoint was made with"
                )
            texts.append(documents[place.document])
        rows = self.tokenizer.encode_batch(texts, prepend_bos=True, threads=self.threads)
        return [Document(tokens, place) for tokens, place in zip(rows, places, strict=True)]
