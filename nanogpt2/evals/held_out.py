"""The held-out text as batches: the same rows on every call, whatever the number of ranks.

Chapter: data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from nanogpt2.data.packing import pack_rows
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError

REFILL = 128
"""documents tokenized at a time"""


def held_out_batches(
    data: Path | str | Sequence[Path],
    tokenizer: Tokenizer,
    tokens: int,
    rows: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets (B, T), B at most ``rows``: the first ``tokens`` held out.

    ``data`` is a folder of shards, or the held-out ones themselves. Packed as in training, each
    document at most once, and dealt out over the ranks by row: the text does not depend on their
    number.
    """

    def tokenized() -> Iterator[list[list[int]]]:
        documents = chain.from_iterable(map(read_documents, _held_out(data)))
        while texts := list(islice(documents, REFILL)):
            yield tokenizer.encode_batch(texts, prepend_bos=True)

    count = max(1, tokens // sequence_len)
    packed = islice(pack_rows(tokenized(), sequence_len + 1), rank, count, world_size)
    while batch := list(islice(packed, rows)):
        block = torch.tensor(batch)
        yield block[:, :-1], block[:, 1:]


def _held_out(data: Path | str | Sequence[Path]) -> Sequence[Path]:
    return find_shards(data).held_out if isinstance(data, (Path, str)) else data


def require_held_out(
    data: Path | str | Sequence[Path], tokenizer: Tokenizer, sequence_len: int
) -> None:
    """Raise UserError unless the held-out text can be measured: a row of it, with text in it.

    Asked before a training, whose end would be the wrong time to learn of it.
    """
    names = ", ".join(path.name for path in _held_out(data)[:3])
    some = False
    for _, targets in held_out_batches(data, tokenizer, 1 << 60, 1, sequence_len):
        some = True
        if tokenizer.token_bytes[targets.numpy()].any():
            return
    what = "holds no text" if some else f"does not fill one row of {sequence_len + 1:,} tokens"
    raise UserError(
        f"the held-out text ({names}) {what}, so the model could not be measured; hold out "
        "more text, or choose a smaller sequence_len"
    )
