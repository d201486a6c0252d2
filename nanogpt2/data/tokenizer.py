"""Byte-level BPE: rustbpe finds the merges, tiktoken applies them.

Source: BPE for text (Sennrich et al., arXiv 1508.07909), on bytes (GPT-2). The split pattern is
GPT-4's with digit groups of at most two, which spends fewer of a small vocabulary's entries on
numbers. ``python -m nanogpt2.data.tokenizer`` trains one. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np
import tiktoken

from nanogpt2.data.long_runs import LONG, cut_long_runs, has_long_run
from nanogpt2.data.pickled import FILE, read_encoding
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import (
    atomic_directory,
    named_path,
    read_json,
    read_text,
    require_folder_place,
    require_replaceable,
    write_json,
)

SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
BOS = "<|bos|>"
SPECIAL_TOKENS = (
    BOS,
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
SMALLEST = 256 + len(SPECIAL_TOKENS)
LARGEST = 2**31
"""tokens are 32-bit numbers"""
PROBE = "It's 2019:\n\n\tna\u00efve \u6771\u4eac  \U0001f642 (ok)  "
"""what any split pattern must take apart without a loss"""
MERGES_FILE, SETTINGS_FILE = "merges.tiktoken", "tokenizer.json"


class Tokenizer:
    """Text to token ids and back, around a ``tiktoken.Encoding`` that knows ``<|bos|>``."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.encoding = encoding
        special = encoding._special_tokens  # tiktoken has no public list of id and name
        if BOS not in special:
            raise UserError(f"the tokenizer has no {BOS} token, which every document starts with")
        self.bos_id: int = special[BOS]
        self.vocab_size: int = encoding.n_vocab
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, index in encoding._mergeable_ranks.items():
            sizes[index] = len(token)
        self.token_bytes: np.ndarray = sizes
        """(vocab_size,): bytes of each token, 0 for special ones; what bits per byte divides by"""

    def encode(self, text: str, prepend_bos: bool = False) -> list[int]:
        """Token ids of ``text``; text that spells a special token is text, never that token."""
        ids = [self.bos_id] if prepend_bos else []
        if not has_long_run(text):
            return ids + self.encoding.encode_ordinary(text)
        for part, alone in cut_long_runs(text, self.encoding._pat_str):
            encode = self.encoding._encode_single_piece if alone else self.encoding.encode_ordinary
            ids += encode(part)
        return ids

    def encode_batch(
        self, texts: Sequence[str], prepend_bos: bool = False, threads: int = 4
    ) -> list[list[int]]:
        """``encode`` of each text, on several threads."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda text: self.encode(text, prepend_bos), texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return self.encoding.decode(list(ids))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from ``texts`` up to ``vocab_size`` tokens, special ones included."""
        import rustbpe

        if vocab_size < SMALLEST:
            raise UserError(
                f"a vocabulary of {vocab_size} is too small: 256 bytes and {len(SPECIAL_TOKENS)} "
                f"special tokens need {SMALLEST}"
            )
        if vocab_size >= LARGEST:
            raise UserError(f"a vocabulary of {vocab_size} is too large; give less than {LARGEST}")
        trainer = rustbpe.Tokenizer()
        wanted = vocab_size - len(SPECIAL_TOKENS)
        parts = chain.from_iterable(map(_learnable, texts))
        trainer.train_from_iterator(parts, wanted, pattern=SPLIT_PATTERN)
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        if len(ranks) < wanted:
            most = len(ranks) + len(SPECIAL_TOKENS)
            raise UserError(
                f"the text is too short for {vocab_size} tokens: it has merges for {most}; "
                "give more text or a smaller vocabulary"
            )
        return cls(_encoding(ranks, SPLIT_PATTERN, SPECIAL_TOKENS))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of pattern, merges and special tokens: equal where all ids are equal."""
        encoding = self.encoding
        merges = sorted((rank, token.hex()) for token, rank in encoding._mergeable_ranks.items())
        special = sorted((index, name) for name, index in encoding._special_tokens.items())
        content = [encoding._pat_str, merges, special]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _keeps_text(self) -> bool:
        try:
            return self.decode(self.encode(PROBE)) == PROBE
        except BaseException as error:  # tiktoken panics where a pattern matches nothing at all
            if type(error).__name__ != "PanicException":
                raise
            return False

    def save(self, folder: Path | str, *inputs: Path | str) -> None:
        """Write two text files: merges in tiktoken's format, and settings with bytes per token.

        Raises UserError where ``folder`` is not this program's to replace, or holds an input.
        """
        merges = self.encoding._mergeable_ranks
        lines = [
            f"{base64.b64encode(token).decode()} {rank}\n"
            for token, rank in sorted(merges.items(), key=lambda item: item[1])
        ]
        special = self.encoding._special_tokens
        with atomic_directory(folder, *inputs) as temporary:
            (temporary / MERGES_FILE).write_text("".join(lines), encoding="ascii")
            settings = {
                "pattern": self.encoding._pat_str,
                "special_tokens": sorted(special, key=lambda name: special[name]),
                "token_bytes": self.token_bytes.tolist(),
            }
            write_json(temporary / SETTINGS_FILE, settings)

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read what ``save`` or nanochat wrote; UserError where a file is missing or damaged."""
        folder = Path(folder)
        if (folder / FILE).is_file() and not (folder / MERGES_FILE).exists():
            return cls(_encoding(*read_encoding(folder / FILE)))
        cure = "train the tokenizer again (python -m nanogpt2.data.tokenizer)"
        settings = read_json(folder / SETTINGS_FILE, cure)
        ranks = _read_merges(folder / MERGES_FILE, cure)
        try:
            tokenizer = cls(_encoding(ranks, settings["pattern"], settings["special_tokens"]))
            agree = tokenizer.token_bytes.tolist() == settings["token_bytes"]
        except UserError:
            raise
        except Exception as error:  # tiktoken's own errors are of many kinds
            reason = str(error)[:100] or type(error).__name__
            raise UserError(f"{folder / SETTINGS_FILE} is damaged ({reason}); {cure}") from None
        if not tokenizer._keeps_text():
            raise UserError(f"{folder / SETTINGS_FILE}: its pattern loses text; {cure}")
        if not agree:
            raise UserError(f"{folder}: merges and bytes per token do not agree; {cure}")
        return tokenizer


def _learnable(text: str) -> Iterator[str]:
    """``text`` in parts that rustbpe can take: long runs of blanks are cut into shorter ones."""
    if not has_long_run(text):
        yield text
        return
    for part, alone in cut_long_runs(text, SPLIT_PATTERN):
        size = LONG if alone else len(part)
        yield from (part[i : i + size] for i in range(0, len(part), size))


def _encoding(
    ranks: dict[bytes, int], pattern: str, special_tokens: Sequence[str]
) -> tiktoken.Encoding:
    special = {name: len(ranks) + i for i, name in enumerate(special_tokens)}
    return tiktoken.Encoding(
        "nanogpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )


def _read_merges(path: Path, cure: str) -> dict[bytes, int]:
    lines, ranks = read_text(path, cure).splitlines(), {}
    try:
        for line in lines:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
        raise UserError(f"{path} is damaged ({error}); {cure}") from None
    whole = sorted(ranks.values()) == list(range(len(lines)))
    if not whole or any(bytes([i]) not in ranks for i in range(256)):
        raise UserError(f"{path} is damaged (tokens are missing or double); {cure}")
    return ranks


def text_sample(shards: Iterable[Path], max_chars: int, doc_chars: int = 10_000) -> Iterator[str]:
    """Documents of ``shards``, each cut to ``doc_chars``, up to ``max_chars`` in all."""
    used = 0
    for path in shards:
        for text in read_documents(path):
            if used >= max_chars:
                return
            used += min(len(text), doc_chars)
            yield text[:doc_chars]


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """How many bytes of UTF-8 one token stands for, over ``texts``."""
    size = tokens = 0
    for text in texts:
        size += len(text.encode())
        tokens += len(tokenizer.encode(text))
    return size / max(1, tokens)


def main(arguments: list[str] | None = None) -> None:
    """Train a tokenizer on a folder of shards and say how well it compresses."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.data.tokenizer", description="Train a byte-level BPE tokenizer."
    )
    parser.add_argument("--data", type=named_path, required=True, help="folder of parquet shards")
    parser.add_argument(
        "--out", type=named_path, required=True, help="folder to write the tokenizer to"
    )
    parser.add_argument("--vocab-size", type=int, default=32768, help="tokens, special ones too")
    parser.add_argument(
        "--max-chars", type=int, default=2_000_000_000, help="characters to learn from"
    )
    options = parser.parse_args(arguments)
    require_folder_place(options.out, "--out")  # before the minutes that it takes
    require_replaceable(options.out, options.data)
    shards = find_shards(options.data)
    print(shards.describe())
    tokenizer = Tokenizer.train(text_sample(shards.train, options.max_chars), options.vocab_size)
    tokenizer.save(options.out, options.data)
    held_out = islice(chain.from_iterable(map(read_documents, shards.held_out)), 1000)
    rate = bytes_per_token(tokenizer, held_out)
    print(f"{tokenizer.vocab_size} tokens in {options.out}, {rate:.2f} bytes a token held out")


if __name__ == "__main__":
    run_command(main)
