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
from enum import Enum
from typing import Any, Protocol

import numpy as np

from nanogpt2.evals.core.tasks import Kind, Sample

Tokens = np.ndarray
"""int32 (n,)"""


class TextEncoder(Protocol):
    """What CORE asks of a tokenizer: ``nanogpt2.data.tokenizer.Tokenizer`` or any other."""

    bos_id: int

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without a begin-of-sequence token."""


class ProtocolName(str, Enum):
    """Whose way of asking."""

    NANOCHAT = "nanochat"
    DCLM = "dclm"

    @property
    def max_tokens(self) -> int | None:
        """Tokens of a prompt that the protocol itself keeps."""
        return 2048 if self is ProtocolName.DCLM else None


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


def render(kind: Kind, item: dict[str, Any], delimiter: str, answer: str) -> str:
    """The text of one example; ``answer`` is the choice, the context or the continuation."""
    if kind is Kind.SCHEMA:
        return answer + delimiter + item["continuation"]
    front = item["query"] if kind is Kind.MULTIPLE_CHOICE else item["context"].strip()
    return front + delimiter + answer


def gold_answer(kind: Kind, item: dict[str, Any]) -> str:
    """The right option's text, or the continuation where there are no options."""
    if kind.options_field is None:
        return item["continuation"]
    return item[kind.options_field][item["gold"]]


def shared_length(sequences: Sequence[Tokens], from_right: bool = False) -> int:
    """How many tokens all sequences have in common at their beginning (or end)."""
    shortest = min(len(sequence) for sequence in sequences)
    first = sequences[0]
    common = shortest
    for other in sequences[1:]:
        if from_right:
            a, b = first[len(first) - common :][::-1], other[len(other) - common :][::-1]
        else:
            a, b = first[:common], other[:common]
        different = np.flatnonzero(a != b)
        common = int(different[0]) if len(different) else common
    return common


@dataclass(frozen=True)
class Question:
    """The texts of one example: encode them, then ask for the ``options``."""

    texts: list[str]
    options: Callable[[list[Tokens]], list[Option]]
    """the encoded texts, in order -> the sequences to score"""


def _bos_first(bos_id: int, tokens: Tokens) -> Tokens:
    return np.concatenate((np.array([bos_id], dtype=np.int32), tokens))


def nanochat_question(sample: Sample, index: int, bos_id: int) -> Question:
    kind, delimiter, item = sample.task.kind, sample.task.delimiter, sample.pool[index]
    shown = "".join(
        render(kind, example, delimiter, gold_answer(kind, example)) + "\n\n"
        for example in sample.fewshot(index)
    )
    if kind is Kind.LANGUAGE_MODELING:
        # Without the continuation and without the delimiter's last space, which would otherwise
        # merge into the continuation's first token and hide where that begins.
        answers = ["", item["continuation"]]
        texts = [shown + render(kind, item, delimiter, answer) for answer in answers]
        texts[0] = texts[0].strip()
    else:
        answers = item[str(kind.options_field)]
        texts = [shown + render(kind, item, delimiter, answer) for answer in answers]

    def options(encoded: list[Tokens]) -> list[Option]:
        sequences = [_bos_first(bos_id, tokens) for tokens in encoded]
        if kind is Kind.SCHEMA:
            suffix = shared_length(sequences, from_right=True)
            return [Option(tokens, len(tokens) - suffix) for tokens in sequences]
        start = shared_length(sequences)
        return [
            Option(tokens, start)
            for tokens in (sequences[1:] if kind is Kind.LANGUAGE_MODELING else sequences)
        ]

    return Question(texts, options)


def _stripped(item: dict[str, Any]) -> dict[str, Any]:
    return {name: v.strip() if isinstance(v, str) else v for name, v in item.items()}


def dclm_question(sample: Sample, index: int, prefix_space: bool) -> Question:
    kind, delimiter, item = sample.task.kind, sample.task.delimiter, _stripped(sample.pool[index])
    shown = "\n".join(
        render(kind, example, delimiter, gold_answer(kind, example))
        for example in map(_stripped, sample.fewshot(index))
    )
    separator = "\n" if shown else ""

    def spaced(text: str) -> str:
        return f" {text}" if prefix_space and not text.startswith(" ") else text

    if kind is Kind.SCHEMA:
        end = delimiter.rstrip() if shown else ""
        contexts = [f"{separator}{context}{end}" for context in item["context_options"]]
        answers = [spaced(item["continuation"])]
    else:
        contexts = [(separator + render(kind, item, delimiter, "")).rstrip()]
        choices = [item["continuation"]] if kind.options_field is None else item["choices"]
        answers = [spaced(choice) for choice in choices]

    def options(encoded: list[Tokens]) -> list[Option]:
        front, rest = encoded[0], encoded[1:]
        before = [np.concatenate((front, context)) for context in rest[: len(contexts)]]
        return [
            Option(np.concatenate((context, answer)), len(context))
            for context in before
            for answer in rest[len(contexts) :]
        ]

    return Question([shown, *contexts, *answers], options)


def wants_space(tokenizer: Any) -> bool:
    """Whether a word after a context is written with a space in front (protocol dclm).

    True where a space is part of the word's first token or one of its own; false of tokenizers
    that put one in front of every text themselves (SentencePiece).
    """
    spaced = list(tokenizer.encode(" a"))
    apart = [*tokenizer.encode(" "), *tokenizer.encode("a")]
    return len(spaced) == 1 or spaced == apart
