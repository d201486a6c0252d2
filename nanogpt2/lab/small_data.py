"""A few million characters of the embedded corpus as token streams, kept on disk between runs."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

import nanogpt2
from nanogpt2.data.corpus import versions
from nanogpt2.files import atomic_directory, user_cache
from nanogpt2.lab.records import digest

if TYPE_CHECKING:
    from nanogpt2.data.tokenizer import Tokenizer

TRAIN_CHARACTERS, VAL_CHARACTERS = 6_000_000, 250_000


@dataclass(frozen=True)
class SmallData:
    """Documents laid end to end, each after its <|bos|>, as streams of token ids."""

    tokenizer: Tokenizer
    train: np.ndarray
    val: np.ndarray

    def batch(self, step: int, batch_size: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) of a step: rows cut from the training stream at random.

        The same seed gives the same rows to every model, so that only the model differs.
        """
        generator = np.random.default_rng((seed, step))
        starts = generator.integers(0, len(self.train) - length - 1, batch_size)
        return rows_at(self.train, starts, length)

    def validation(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """The first ``rows`` rows (B, T) of the held-out stream; fewer where it is shorter."""
        rows = min(rows, (len(self.val) - 1) // length)
        return rows_at(self.val, np.arange(rows) * length, length)


def rows_at(stream: np.ndarray, starts: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T): rows of the stream, and the same one token later."""
    rows = torch.from_numpy(stream[starts[:, None] + np.arange(length + 1)].astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def cache_folder() -> Path:
    """Where runs and tokens are kept: NANOGPT2_LAB_CACHE, else the checkout's ``_build/lab``.

    Without a checkout (or in one that may only be read), the user's cache.
    """
    if named := os.environ.get("NANOGPT2_LAB_CACHE"):
        return Path(named)
    root = Path(nanogpt2.__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file() and os.access(root, os.W_OK):
        return root / "_build" / "lab"
    return user_cache("set NANOGPT2_LAB_CACHE to a folder you may write to") / "lab"


def code_hash(*names: str) -> str:
    """SHA-256 of the package's rooms or files of those names: what a cached result depends on."""
    found = hashlib.sha256()
    root = Path(nanogpt2.__file__).resolve().parent
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def small_data(vocab_size: int = 2048) -> SmallData:
    """The streams for a vocabulary of that size, made on the first call (about ten seconds)."""
    from nanogpt2.data.tokenizer import Tokenizer  # pages without a run need no tokenizer

    key = digest([code_hash("data", "lab/small_data.py"), versions()])[:12]
    folder = cache_folder() / f"data-{vocab_size}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        if not folder.is_dir():
            print(f"making the tokenizer and the token streams (once) in {folder}", file=sys.stderr)
            _make(folder, vocab_size)
    return SmallData(
        Tokenizer.load(folder / "tokenizer"),
        np.load(folder / "train.npy", mmap_mode="r"),
        np.load(folder / "val.npy", mmap_mode="r"),
    )


def _make(folder: Path, vocab_size: int) -> None:
    from nanogpt2.data.corpus import missing_packages, write_embedded_corpus
    from nanogpt2.data.shards import find_shards, read_documents
    from nanogpt2.data.tokenizer import Tokenizer

    if missing := missing_packages():
        print(missing, file=sys.stderr)
    with atomic_directory(folder) as temporary:
        write_embedded_corpus(temporary / "corpus")
        shards = find_shards(temporary / "corpus")
        # every so manieth document, so that the sample is of all the sources
        texts = [text for shard in shards.train for text in read_documents(shard)]
        texts = texts[:: max(1, round(sum(map(len, texts)) / TRAIN_CHARACTERS))]
        tokenizer = Tokenizer.train(texts, vocab_size)
        tokenizer.save(temporary / "tokenizer")
        held_out = [text for shard in shards.held_out for text in read_documents(shard)]
        before = accumulate(map(len, held_out), initial=0)  # characters, until there are enough
        val = [text for text, size in zip(held_out, before, strict=False) if size < VAL_CHARACTERS]
        for name, documents in (("train", texts), ("val", val)):
            tokens = tokenizer.encode_batch(documents, prepend_bos=True)
            stream = np.fromiter((t for row in tokens for t in row), dtype=np.uint16)
            np.save(temporary / f"{name}.npy", stream)
