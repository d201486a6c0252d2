"""How the tokens of a step are spread over ranks and forward passes. Chapter: loop."""

from __future__ import annotations

from dataclasses import dataclass

from nanogpt2.errors import UserError


@dataclass(frozen=True)
class Batch:
    """How a step's rows are spread: over ranks, then over forward passes."""

    rows: int
    """of one forward pass on one rank (B)"""
    passes: int
    """forward and backward passes a step (gradient accumulation)"""
    tokens: int
    """of one step, over all ranks"""


def shape_batch(tokens: int, sequence_len: int, world_size: int, most_rows: int) -> Batch:
    """The largest number of rows up to ``most_rows`` that deals out a batch of ``tokens`` exactly.

    Raises UserError where the batch is no whole number of rows on every rank.
    """
    rows, rest = divmod(tokens, sequence_len * world_size)
    if rest or not rows:
        raise UserError(
            f"a batch of {tokens:,} tokens is not a whole number of rows of {sequence_len:,} on "
            f"each of {world_size} ranks; choose batch_tokens as a multiple of "
            f"{sequence_len * world_size:,}"
        )
    most = max(n for n in range(1, min(most_rows, rows) + 1) if rows % n == 0)
    return Batch(rows=most, passes=rows // most, tokens=tokens)
