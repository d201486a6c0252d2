"""What a run asks of its model while it learns: bits per byte of held-out text, CORE, a few lines.

The trainer is handed these questions; it knows no evaluation itself. Chapter: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.core import CoreEvaluator
from nanogpt2.evals.held_out import held_out_batches, require_held_out
from nanogpt2.evals.modes import evaluating
from nanogpt2.run import PROMPTS, Run

SAMPLE_TOKENS = 40
"""of a sample, at most"""
TEMPERATURE = 0.8


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

    @torch.no_grad()
    def write(self, model: Any) -> list[dict[str, str]]:
        """Prompt and text of two samples, by draws of their own; short, and so without a cache."""
        bos, samples = self.tokenizer.bos_id, []
        chance = torch.Generator().manual_seed(0)
        for prompt in PROMPTS[:2]:
            tokens = self.tokenizer.encode(prompt, prepend_bos=True)[: self.sequence_len]
            read, room = len(tokens), min(self.sequence_len, len(tokens) + SAMPLE_TOKENS)
            with evaluating(model):
                while len(tokens) < room:
                    logits = model(torch.tensor([tokens], device=model.device))[0, -1].cpu()
                    chances = (logits / TEMPERATURE).softmax(-1)
                    token = int(torch.multinomial(chances, 1, generator=chance))
                    if token == bos:  # another text begins
                        break
                    tokens.append(token)
            samples.append({"prompt": prompt, "text": self.tokenizer.decode(tokens[read:])})
        return samples
