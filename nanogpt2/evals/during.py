"""What a run asks of its model while it learns: bits per byte of its held-out text, and CORE.

The trainer is handed these questions; it knows no evaluation itself. Chapter: loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.core import CoreEvaluator
from nanogpt2.evals.held_out import held_out_batches, require_held_out


class Questions:
    """Asked in every rank, of the same text and the same examples each time.

    Args:
        tokens: how many held-out tokens one measurement reads, over all ranks.
        bundle: folder of CORE's tasks; None where CORE is not asked.
        max_per_task: examples of each CORE task; None: all.
        rows: most rows (B) of a forward pass.

    Raises UserError where the tasks cannot be read: now, and not when they are due.
    """

    def __init__(
        self,
        tokens: int,
        bundle: Path | None,
        max_per_task: int | None,
        tokenizer: Tokenizer,
        sequence_len: int,
        rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.tokens, self.tokenizer, self.sequence_len = tokens, tokenizer, sequence_len
        self.rows, self.rank, self.world_size = rows, rank, world_size
        self.held_out: list[tuple[Tensor, Tensor]] | None = None
        self.evaluator = bundle and CoreEvaluator(tokenizer, bundle, max_per_task=max_per_task)

    def require(self, held_out: Sequence[Path]) -> None:
        """UserError unless these shards can be measured; before a training, not at its end."""
        require_held_out(held_out, self.tokenizer, self.sequence_len)

    def bits_per_byte(self, model: Any, held_out: Sequence[Path]) -> float:
        """Of the held-out shards, in the order of the run's text."""
        if self.held_out is None:
            share = held_out_batches(
                held_out,
                self.tokenizer,
                self.tokens,
                self.rows,
                self.sequence_len,
                self.rank,
                self.world_size,
            )
            self.held_out = list(share)
        return bits_per_byte(model, self.held_out, self.tokenizer.token_bytes)

    def core(self, model: Any) -> float:
        """CORE of the sample."""
        assert self.evaluator is not None
        return self.evaluator.evaluate(model).core
