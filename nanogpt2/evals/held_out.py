"""The held-out text as batches: the same rows on every call, whatever the number of ranks.

Chapter: tokens_and_rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from torch import Tensor

from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.texts import batches_of, packed_rows
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError


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
    texts = chain.from_iterable(map(read_documents, _held_out(data)))
    packed = packed_rows(texts, tokenizer, sequence_len + 1)
    count = max(1, tokens // sequence_len)
    yield from batches_of(islice(packed, rank, count, world_size), rows)


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
