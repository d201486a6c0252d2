"""Tokenizers of every size from one, other digit groups, and bytes counted wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import regex
import tiktoken

from nanogpt2.data.tokenizer import BOS, SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer, bytes_per_token
from nanogpt2.depth import dial, flops_per_token
from nanogpt2.lab.seams import patched
from nanogpt2.reported import DIGITS_1_BPB, DIGITS_2_BPB, DIGITS_3_BPB

SAMPLE = (
    "the cat sat on the mat, and the cat that sat on the mat sat there in 1999; "
    "then the other cat came, and that cat sat on the hat"
)
"""short enough to watch every merge of it"""
MERGES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
GROUP = r"\p{N}{1,2}"


def first_merges(tokenizer: Tokenizer, merges: int) -> Tokenizer:
    """The tokenizer with the first so many of its merges.

    Merges are learned one after another, so this is what training to that size would have given.
    """
    ranks = {
        token: rank
        for token, rank in tokenizer.encoding._mergeable_ranks.items()
        if rank < 256 + merges
    }
    return Tokenizer(
        tiktoken.Encoding(
            "part", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={BOS: len(ranks)}
        )
    )


@cache
def sample_tokenizer() -> Tokenizer:
    """Trained on ``SAMPLE`` alone."""
    return Tokenizer.train([SAMPLE], 256 + len(SPECIAL_TOKENS) + max(MERGES))


def newest(tokenizer: Tokenizer, merges: int) -> str:
    """What the last of so many merges made."""
    token = tokenizer.encoding.decode_single_token_bytes(255 + merges)
    return token.decode("utf-8", "replace")


def digit_tokenizer(texts: Sequence[str], vocab_size: int, digits: int) -> Tokenizer:
    """Trained with digits in groups of at most so many."""
    pattern = SPLIT_PATTERN.replace(GROUP, rf"\p{{N}}{{1,{digits}}}")
    with patched("nanogpt2.data.tokenizer.SPLIT_PATTERN", pattern):
        return Tokenizer.train(texts, vocab_size)


def digit_rows(texts: Sequence[str], held_out: Sequence[str], vocab_size: int) -> list[list[Any]]:
    """Rows: digits in a group, entries that are numbers, a year in tokens, bytes a token, told.

    The last is what a model of depth 12 reached with 32,768 tokens.
    """
    rows = []
    for digits, told in enumerate((DIGITS_1_BPB, DIGITS_2_BPB, DIGITS_3_BPB), 1):
        made = digit_tokenizer(texts, vocab_size, digits)
        entries = sum(
            token.strip().isdigit() for token in made.encoding._mergeable_ranks if len(token) > 1
        )
        parts = "|".join(made.decode([one]) for one in made.encode("1984"))
        rows.append([str(digits), entries, parts, bytes_per_token(made, held_out), float(told)])
    return rows


def vocabulary_rows(
    tokenizer: Tokenizer, texts: Sequence[str], sizes: Sequence[int], depth: int
) -> list[list[Any]]:
    """Rows: vocabulary, bytes a token, the head's share of a token's FLOPs, FLOPs a byte.

    At ``depth`` of run 1; of the tokenizer's first merges, over ``texts``.
    """
    rows = []
    for size in sizes:
        small = first_merges(tokenizer, size - 256 - len(SPECIAL_TOKENS))
        rate = bytes_per_token(small, texts)
        model = replace(dial(depth, "run1").model, vocab_size=size)
        head = 6 * model.padded_vocab_size * model.n_embd / flops_per_token(model)
        rows.append([f"{size:,}", rate, head, flops_per_token(model) / rate])
    return rows


def torn(tokenizer: Tokenizer) -> list[int]:
    """Tokens whose bytes are no whole characters."""
    return [
        index
        for token, index in tokenizer.encoding._mergeable_ranks.items()
        if b"\xef\xbf\xbd" in token.decode("utf-8", "replace").encode()
    ]


def bytes_by_decoding(tokenizer: Tokenizer) -> np.ndarray:
    """(vocab_size,): bytes of every token's *decoded text*, which is the slip; 0 for special ones.

    A torn token decodes to U+FFFD, three bytes whatever it stood for.
    """
    sizes = np.zeros_like(tokenizer.token_bytes)
    for index in tokenizer.encoding._mergeable_ranks.values():
        sizes[index] = len(tokenizer.decode([index]).encode())
    return sizes


def words_of(pattern: str, text: str) -> str:
    """``text`` with a bar between the pieces of a split pattern."""
    return "|".join(regex.findall(pattern, text)).replace("\n", "/")
