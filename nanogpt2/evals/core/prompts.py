"""From an example to the token sequences that a model scores, and which of their tokens count.

Two protocols. ``nanochat`` (default; the one behind GPT-2's 0.256525): a whole prompt is encoded at
once behind a begin-of-sequence token, and the scored span is found by comparing tokens. ``dclm``
follows the harness of the DCLM paper (arXiv 2406.11794): a single newline between examples, no
begin-of-sequence token, context and continuation encoded apart so that every token of the
continuation is scored, 2,048 tokens at most. Chapter: core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanogpt2.evals.core.plain import plain_text, right_answer
from nanogpt2.evals.core.tasks import Kind, Sample

Tokens = np.ndarray
"""int32 (n,)"""
DCLM_TOKENS = 2048
"""of a prompt that the protocol dclm keeps"""


@dataclass(frozen=True)
class Option:
    """A token sequence; tokens ``start`` to the end are scored, each from those before it."""

    tokens: Tokens
    start: int

    def cropped(self, limit: int | None) -> Option:
        """The last ``limit`` tokens, the span moved with them.

        The first token of a sequence has nothing before it and is never scored, so a span that
        begins at it, or before the cut, loses that token.
        """
        cut = 0 if limit is None else max(0, len(self.tokens) - limit)
        return Option(self.tokens[cut:], max(1, self.start - cut))


@dataclass(frozen=True)
class Question:
    """The texts of one example: encode them, then ask for the ``options``."""

    texts: list[str]
    options: Callable[[list[Tokens]], list[Option]]
    """the encoded texts, in order -> the sequences to score"""


def shared_length(sequences: Sequence[Tokens]) -> int:
    """How many tokens all sequences have in common at their beginning."""
    common = min(map(len, sequences))
    for other in sequences[1:]:
        different = np.flatnonzero(sequences[0][:common] != other[:common])
        common = int(different[0]) if len(different) else common
    return common


def nanochat_question(sample: Sample, index: int, bos_id: int) -> Question:
    """The texts of ``plain.plain_sequences``; the span is what the options do not share."""
    kind, delimiter, item = sample.task.kind, sample.task.delimiter, sample.pool[index]
    shown = "".join(
        plain_text(example, delimiter, right_answer(example)) + "\n\n"
        for example in sample.fewshot(index)
    )
    asks = kind is not Kind.LANGUAGE_MODELING
    answers = item[str(kind.options_field)] if asks else ["", item["continuation"]]
    texts = [shown + plain_text(item, delimiter, answer) for answer in answers]
    if not asks:
        # Without the continuation and without the delimiter's last space, which would otherwise
        # merge into the continuation's first token and hide where that begins.
        texts[0] = texts[0].strip()

    def options(encoded: list[Tokens]) -> list[Option]:
        bos = np.array([bos_id], dtype=np.int32)
        sequences = [np.concatenate((bos, tokens)) for tokens in encoded]
        if kind is Kind.SCHEMA:
            suffix = shared_length([tokens[::-1] for tokens in sequences])
            return [Option(tokens, len(tokens) - suffix) for tokens in sequences]
        start = shared_length(sequences)
        return [Option(tokens, start) for tokens in sequences[0 if asks else 1 :]]

    return Question(texts, options)


def dclm_question(sample: Sample, index: int, prefix_space: bool) -> Question:
    """Few-shot examples, contexts and answers as texts apart; every answer behind every context."""
    kind, delimiter, item = sample.task.kind, sample.task.delimiter, _stripped(sample.pool[index])
    shown = "\n".join(
        plain_text(example, delimiter, right_answer(example))
        for example in map(_stripped, sample.fewshot(index))
    )
    separator = "\n" if shown else ""
    if kind is Kind.SCHEMA:
        end = delimiter.rstrip() if shown else ""
        contexts = [f"{separator}{context}{end}" for context in item["context_options"]]
    else:
        contexts = [(separator + plain_text(item, delimiter, "")).rstrip()]
    answers = item["choices"] if kind is Kind.MULTIPLE_CHOICE else [item["continuation"]]
    if prefix_space:
        answers = [answer if answer.startswith(" ") else f" {answer}" for answer in answers]

    def options(encoded: list[Tokens]) -> list[Option]:
        front, rest = encoded[0], encoded[1:]
        before = [np.concatenate((front, context)) for context in rest[: len(contexts)]]
        return [
            Option(np.concatenate((context, answer)), len(context))
            for context in before
            for answer in rest[len(contexts) :]
        ]

    return Question([shown, *contexts, *answers], options)


def _stripped(item: dict[str, Any]) -> dict[str, Any]:
    return {name: v.strip() if isinstance(v, str) else v for name, v in item.items()}


def wants_space(tokenizer: Any) -> bool:
    """Whether a word after a context is written with a space in front (protocol dclm).

    True where a space is part of the word's first token or one of its own; false of tokenizers
    that put one in front of every text themselves (SentencePiece).
    """
    spaced = list(tokenizer.encode(" a"))
    apart = [*tokenizer.encode(" "), *tokenizer.encode("a")]
    return len(spaced) == 1 or spaced == apart
