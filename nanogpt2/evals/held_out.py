"""The held-out text as batches: the same rows on every call, whatever the number of ranks.

Chapter: data.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from nanogpt2.data.packing import pack_rows
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.tokenizer import Tokenizer

REFILL = 128
"""documents tokenized at a time"""


def held_out_batches(
    data_dir: Path | str,
    tokenizer: Tokenizer,
    tokens: int,
    rows: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets (B, T), B at most ``rows``: the first ``tokens`` held out.

    Packed as in training, each document at most once, and dealt out over the ranks by row: the text
    does not depend on their number.
    """

    def tokenized() -> Iterator[list[list[int]]]:
        documents = chain.from_iterable(map(read_documents, find_shards(data_dir).held_out))
        while texts := list(islice(documents, REFILL)):
            yield tokenizer.encode_batch(texts, prepend_bos=True)

    count = max(1, tokens // sequence_len)
    packed = islice(pack_rows(tokenized(), sequence_len + 1), rank, count, world_size)
    while batch := list(islice(packed, rows)):
        block = torch.tensor(batch)
        yield block[:, :-1], block[:, 1:]
