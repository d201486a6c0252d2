"""Real text as tokens on disk: made once, mapped into memory by every training run that reads it.

Documents are cut at paragraphs. A seed is an order of the documents; held-out rows are the same for
all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch import Tensor

from nanogpt2.data.corpus import split_paragraphs
from nanogpt2.data.packing import pack_rows
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.texts import batches_of
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.files import atomic_directory
from nanogpt2.lab.small_data import cache_folder, code_hash

PIECE = 700
"""characters: rows of 257 tokens (of a vocabulary of 2,048) then crop a third, like the run's"""
REFILL = 128
"""documents that one refill of the packing buffer adds"""
TOKENIZER_CHARACTERS = 10_000_000
HELD_OUT_CHARACTERS = 3_000_000


@dataclass(frozen=True)
class Text:
    """Documents as tokens, each after its <|bos|>; those of a split lie end to end."""

    tokenizer: Tokenizer
    tokens: dict[str, np.ndarray]
    """by split, "train" and "val" """
    ends: dict[str, np.ndarray]
    """where each document ends"""
    digest: str
    """SHA-256 of the tokens and the documents' ends"""

    def batches(
        self, packing: str, rows: int, sequence_len: int, seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets (B, T): training text in the order of ``seed``; held-out without."""
        split = "val" if seed is None else "train"
        documents = self._documents(split, seed)
        refills = iter(lambda: list(islice(documents, REFILL)), [])
        capacity = sequence_len + 1
        make = pack_rows if packing == "best_fit" else stream_rows
        return batches_of(make(refills, capacity), rows)

    def held_out(self, packing: str, rows: int, sequence_len: int) -> list[tuple[Tensor, Tensor]]:
        """The first ``rows`` held-out rows, some at a time; UserError where there are fewer."""
        found = list(islice(self.batches(packing, 16, sequence_len), -(-rows // 16)))
        if sum(len(inputs) for inputs, _ in found) < rows:
            raise UserError(
                f"the held-out text has fewer than {rows:,} rows of {sequence_len} tokens; "
                "give a data folder with more validation text"
            )
        return found

    def _documents(self, split: str, seed: int | None) -> Iterator[list[int]]:
        tokens, ends = self.tokens[split], self.ends[split]
        order = np.arange(len(ends))
        if seed is not None:
            np.random.default_rng(seed).shuffle(order)
        for i in order:
            yield tokens[ends[i - 1] if i else 0 : ends[i]].tolist()


def stream_rows(batches: Iterable[list[list[int]]], row_capacity: int) -> Iterator[list[int]]:
    """Rows cut from the documents laid end to end, as before packing; what is left is dropped."""
    tokens = chain.from_iterable(chain.from_iterable(batches))
    while len(row := list(islice(tokens, row_capacity))) == row_capacity:
        yield row


def text_of(data: Path, vocab_size: int, characters: int) -> Text:
    """The shards in ``data`` as tokens: the first ``characters`` to train on, and held-out text."""
    shards = find_shards(data)
    files = [f"{path.name} {path.stat().st_size}" for path in shards.files]
    made = (files, vocab_size, characters, PIECE, code_hash("data", "lab/text.py"))
    folder = cache_folder() / f"text-{hashlib.sha256(repr(made).encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        if not folder.is_dir():
            print(f"making the tokenizer and the tokens (once) in {folder}", flush=True)
            train = _pieces(shards.train, characters)
            with atomic_directory(folder) as temporary:
                size = sum(map(len, train))
                sample = train[:: max(1, size // TOKENIZER_CHARACTERS)]
                tokenizer = Tokenizer.train(sample, vocab_size)
                tokenizer.save(temporary / "tokenizer")
                val = _pieces(shards.held_out, HELD_OUT_CHARACTERS)
                for split, texts in (("train", train), ("val", val)):
                    encoded = tokenizer.encode_batch(texts, prepend_bos=True, threads=1)
                    stream = np.fromiter((t for row in encoded for t in row), np.uint16)
                    np.save(temporary / f"{split}.npy", stream)
                    np.save(temporary / f"{split}-ends.npy", np.cumsum([*map(len, encoded)]))
    tokens = {s: np.load(folder / f"{s}.npy", mmap_mode="r") for s in ("train", "val")}
    ends = {s: np.load(folder / f"{s}-ends.npy") for s in ("train", "val")}
    digest = hashlib.sha256()
    for array in (*tokens.values(), *ends.values()):
        digest.update(array.tobytes())
    return Text(Tokenizer.load(folder / "tokenizer"), tokens, ends, digest.hexdigest())


def _pieces(shards: list[Path], characters: int) -> list[str]:
    """Documents cut at paragraphs, until there are so many characters."""
    pieces, size = list[str](), 0
    for shard in shards:
        for text in read_documents(shard):
            if size >= characters:
                return pieces
            pieces += split_paragraphs(text, PIECE)
            size += len(text)
    return pieces
