"""Prompts to tokens, every piece of text once. Chapter: core."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from nanogpt2.data.tokenizer import SPLIT_PATTERN
from nanogpt2.evals.core.prompts import (
    DCLM_TOKENS,
    Option,
    Tokens,
    dclm_question,
    nanochat_question,
    wants_space,
)
from nanogpt2.evals.core.tasks import Sample


class PromptBuilder:
    """Encodes examples by a protocol, many at a time and no piece of text twice.

    Few-shot examples recur in many prompts. Where the tokenizer is known to end a token at every
    line break that a visible character follows, prompts are cut there and the pieces remembered.
    """

    def __init__(self, tokenizer: Any, protocol: str, limit: int | None) -> None:
        self.tokenizer, self.protocol = tokenizer, protocol
        self.limit = limit
        if protocol == "dclm":
            self.limit = min(limit or DCLM_TOKENS, DCLM_TOKENS)
        self.pieces: dict[str, Tokens] = {}
        self.cuts = line_breaks_end_tokens(tokenizer)
        self.prefix_space = wants_space(tokenizer)

    def options(self, sample: Sample, indices: Iterable[int]) -> list[list[Option]]:
        """The sequences of every example of ``indices``."""
        if self.protocol == "nanochat":
            bos = int(self.tokenizer.bos_id)
            questions = [nanochat_question(sample, i, bos) for i in indices]
        else:
            questions = [dclm_question(sample, i, self.prefix_space) for i in indices]
        encoded = iter(self.encode([text for question in questions for text in question.texts]))
        asked = [q.options(list(islice(encoded, len(q.texts)))) for q in questions]
        return [[option.cropped(self.limit) for option in options] for options in asked]

    def encode(self, texts: list[str]) -> list[Tokens]:
        """Tokens of every text, without a begin-of-sequence token."""
        cut = _LINE_START.split if self.cuts else (lambda text: [text])
        pieces = [cut(text) for text in texts]
        new = list({piece for parts in pieces for piece in parts} - self.pieces.keys())
        if new:  # by the tokenizer's own threads where it has them
            batch = getattr(self.tokenizer, "encode_batch", None)
            encoded = batch(new) if batch else map(self.tokenizer.encode, new)
            for piece, tokens in zip(new, encoded, strict=True):
                self.pieces[piece] = np.asarray(tokens, dtype=np.int32)
        return [np.concatenate([self.pieces[piece] for piece in parts]) for parts in pieces]


_LINE_START = re.compile(r"(?<=\n)(?=\S)")


def line_breaks_end_tokens(tokenizer: Any) -> bool:
    r"""Whether a text may be encoded in pieces cut after each ``\n`` before a visible character.

    True of our split pattern: no alternative matches past a line break into a visible character,
    and ``\s*[\r\n]`` takes a run of white space up to its last line break whatever follows. Not
    true of GPT-2's pattern, where a visible character takes the last line break from the run.
    """
    encoding = getattr(tokenizer, "encoding", None)
    return getattr(encoding, "_pat_str", None) == SPLIT_PATTERN
