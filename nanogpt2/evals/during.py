"""What a run asks of its model while it learns: bits per byte of its held-out text, and CORE.

The trainer is handed these questions; it knows no evaluation itself. Chapter: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.core import CoreEvaluator
from nanogpt2.evals.held_out import held_out_batches, require_held_out
from nanogpt2.run import Run


@dataclass
class Questions:
    """Asked by every rank, of the same text and the same examples each time."""

    run: Run
    tokenizer: Tokenizer
    rows: int
    """most rows (B) of a forward pass"""
    rank: int = 0
    world_size: int = 1
    batches: list[tuple[Tensor, Tensor]] | None = None
    """this rank's share of the text, once it was read"""

    def __post_init__(self) -> None:
        loop, dial = self.run.loop, self.run.dial
        self.tokens, self.sequence_len = loop.over(dial).eval_tokens or 0, dial.model.sequence_len
        if loop.core_every:  # now: a bundle that cannot be read must not wait until it is due
            if self.run.core_bundle is None:
                raise UserError(
                    "core_every is set and core_bundle is not; name the folder of the tasks"
                )
            self.evaluator = CoreEvaluator(
                self.tokenizer, self.run.core_bundle, max_per_task=loop.core_sample
            )

    def require(self, held_out: Sequence[Path]) -> None:
        """UserError unless these shards can be measured; before a training, not at its end."""
        require_held_out(held_out, self.tokenizer, self.sequence_len)

    def bits_per_byte(
        self, model: Any, held_out: Sequence[Path], stop: Callable[[], bool]
    ) -> float:
        """Of the held-out shards, in the order of the run's text."""
        if self.batches is None:
            share = held_out_batches(
                held_out,
                self.tokenizer,
                self.tokens,
                self.rows,
                self.sequence_len,
                self.rank,
                self.world_size,
            )
            self.batches = list(share)
        return bits_per_byte(model, self.batches, self.tokenizer.token_bytes, stop=stop)

    def resize(self, tokens: int) -> None:
        """Measure so many tokens from now on."""
        if tokens != self.tokens:
            self.tokens, self.batches = tokens, None

    def core(self, model: Any, stop: Callable[[], bool]) -> float:
        """CORE of the sample."""
        return self.evaluator.evaluate(model, stop=stop).core
