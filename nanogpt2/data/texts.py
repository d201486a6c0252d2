"""Batches from texts that are at hand: a list of strings, or the documents of some shards.

Tokenized and packed as in training; ``loader`` does the same for shards that are too many to hold,
and can be resumed. Chapter: tokens_and_rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat

import torch
from torch import Tensor

from nanogpt2.data.packing import pack_rows
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError

REFILL = 128
"""documents tokenized at a time"""


def text_batches(
    texts: Iterable[str], tokenizer: Tokenizer, rows: int, sequence_len: int, again: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T) int64 each, of ``texts``; B is ``rows``, or less at the end.

    Each text is a document, read once or, with ``again``, in turn for ever. What does not fill a
    row of T + 1 tokens at the end is dropped.

    Raises UserError for a single string, and where there is no text to read again.
    """
    if isinstance(texts, str):
        raise UserError("the texts are one string; give a list of strings, each a document")
    if again:
        texts = list(texts)
        if not any(texts):
            raise UserError("there is no text to read again; give at least one that is not empty")
        texts = chain.from_iterable(repeat(texts))
    return batches_of(packed_rows(texts, tokenizer, sequence_len + 1), rows)


def packed_rows(texts: Iterable[str], tokenizer: Tokenizer, capacity: int) -> Iterator[list[int]]:
    """Rows of ``capacity`` tokens: the texts, each after its <|bos|>, packed by best fit."""
    documents = iter(texts)
    batches = iter(lambda: list(islice(documents, REFILL)), [])
    return pack_rows((tokenizer.encode_batch(b, prepend_bos=True) for b in batches), capacity)


def batches_of(rows: Iterable[list[int]], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets (B, T) of rows of T + 1 tokens, B at most ``count``."""
    stream = iter(rows)
    while batch := list(islice(stream, count)):
        block = torch.tensor(batch)
        yield block[:, :-1], block[:, 1:]
