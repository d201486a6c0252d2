"""Losses and greedy matches of scored tokens, for our model, a Hugging Face one or any function.

Right padding needs no mask: a causal model's scored positions come before it. Logits are made only
at the positions that a score reads. Chapter: core.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import StopRequested, UserError
from nanogpt2.evals.core.fast.layout import Batch, Job, Key, Row, plan_batches, share_prefixes
from nanogpt2.evals.core.fast.prefix import SharedPrefix
from nanogpt2.evals.core.results import NOTHING, Score
from nanogpt2.kernels.loss import free_bytes
from nanogpt2.machines import free_memory

LOGIT_BYTES = 1 << 28
"""fp32 logits held at once"""
MOST_TOKENS = {"cpu": 2048, "cuda": 131072, "mps": 16384}
"""columns of a batch beyond which a device only spends memory"""


class Scorer:
    """Any causal model as a function ``model(idx (B, T)) -> logits (B, T, V)``."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = model_device(model)

    def limit(self) -> int | None:
        """The longest sequence the model reads, None for no limit."""
        return getattr(self.model, "max_seq_len", None)

    def vocab_size(self) -> int | None:
        """How many tokens the model knows, where it says so."""
        return getattr(getattr(self.model, "config", None), "vocab_size", None)

    def bytes_per_token(self) -> int:
        """Memory that one column of a batch takes, on the safe side."""
        return 4 * 4 * (self.vocab_size() or 65536)

    def max_tokens(self) -> int:
        """Columns of a batch, from the memory that is free now."""
        if self.device.type == "cuda":
            free = free_bytes(self.device)
        else:
            free = free_memory()
        fitting = int(0.4 * free) // self.bytes_per_token()
        return max(1024, min(fitting, MOST_TOKENS.get(self.device.type, 4096)))

    def logits(self, tokens: Tensor, flat: Tensor) -> Tensor:
        """fp32 (N, V) at the ``flat`` places of a batch's ``tokens``."""
        return self.model(tokens).flatten(0, 1)[flat].float()

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss (N,) of every target and whether it is the greedy choice (N,)."""
        return compare(self.logits(*self.here(batch.tokens, batch.flat)), *self.here(batch.targets))

    def here(self, *arrays: np.ndarray) -> list[Tensor]:
        """Arrays on the model's device."""
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def run(
        self, jobs: Sequence[Job], stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Key, Score]]:
        """Scores of all jobs, batch by batch; a batch that does not fit is halved.

        Raises StopRequested as soon as ``stop`` is true, which is asked before each batch.
        """
        scored = []
        for job in jobs:
            if len(job.option.tokens) > job.option.start:
                scored.append(job)
            else:
                yield job.key, NOTHING
        for batch in plan_batches(self.rows(scored), self.max_tokens()):
            if stop():
                raise StopRequested
            yield from self.score(batch)

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        """What the model reads together: here every sequence alone."""
        return [Row(job.inputs, [job]) for job in jobs]

    def score(self, batch: Batch) -> list[tuple[Key, Score]]:
        """The score of every job of a batch, in halves where the device has too little memory."""
        try:
            with torch.inference_mode():
                losses, matches = (found.cpu() for found in self.measure(batch))
            return [
                (key, Score(losses[begin:end].mean().item(), bool(matches[begin:end].all())))
                for key, begin, end in batch.spans
            ]
        except torch.cuda.OutOfMemoryError:
            if len(batch.rows) == 1:
                raise UserError(
                    f"one prompt of {batch.size} tokens does not fit into the device's memory; "
                    "free some of it or evaluate on another device"
                ) from None
        torch.cuda.empty_cache()
        half = sum(row.size for row in batch.rows) // 2
        return [
            result for part in plan_batches(batch.rows, max(1, half)) for result in self.score(part)
        ]


def compare(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each target under its logits, and whether it is the first choice."""
    return F.cross_entropy(logits, targets, reduction="none"), logits.argmax(dim=-1) == targets


class GPTScorer(Scorer):
    """Our model: shared prefixes in one pass, logits where they are read."""

    def limit(self) -> int | None:
        """Rows of the position tables."""
        return super().limit() or self.model.max_positions

    def rows(self, jobs: Sequence[Job]) -> list[Row]:
        """Sequences that begin alike share a row."""
        return share_prefixes(jobs)

    def bytes_per_token(self) -> int:
        """The stream, a layer's attention and MLP at fp32, and the mask of endings."""
        return 4 * 40 * self.model.config.n_embd + 4 * 2048

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss (N,) of every target and whether it is the greedy choice (N,)."""
        tokens, flat, targets = self.here(batch.tokens, batch.flat, batch.targets)
        cache = None
        if batch.ending_width:
            cache = SharedPrefix(batch, self.device, self.model.attention_backend)
        hidden = self.model.hidden(tokens, cache).flatten(0, 1)
        losses = torch.empty(len(flat), device=self.device)
        matches = torch.empty(len(flat), dtype=torch.bool, device=self.device)
        step = max(1, LOGIT_BYTES // (4 * self.model.config.vocab_size))
        for chunk in torch.argsort(flat, stable=True).split(step):
            # choices that share a prefix all read the logits of its last token: made once
            places, where = torch.unique(flat[chunk], return_inverse=True)
            logits = self.model.logits(hidden[places])
            if len(places) < len(chunk):
                logits = logits[where]
            losses[chunk], matches[chunk] = compare(logits, targets[chunk])
        return losses, matches


class HuggingFaceScorer(Scorer):
    """A causal language model of ``transformers``; logits from the first scored position on."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def limit(self) -> int | None:
        """The configuration's number of positions (1,024 for GPT-2)."""
        return super().limit() or getattr(self.model.config, "max_position_embeddings", None)

    def logits(self, tokens: Tensor, flat: Tensor) -> Tensor:
        """fp32 (N, V) at the ``flat`` places of a batch's ``tokens``."""
        row, column = flat // tokens.size(1), flat % tokens.size(1)
        first = int(column.min()) if self.keeps else 0
        more = {"logits_to_keep": tokens.size(1) - first} if self.keeps else {}
        out = self.model(input_ids=tokens, use_cache=False, **more).logits
        return out[row, column - first].float()


def scorer_for(model: Any) -> Scorer:
    """The fastest way to score ``model``."""
    if all(hasattr(model, name) for name in ("hidden", "logits", "attention_backend", "config")):
        return GPTScorer(model)
    if hasattr(model, "generate") and hasattr(model, "config") and hasattr(model, "forward"):
        return HuggingFaceScorer(model)
    return Scorer(model)


def model_device(model: Any) -> torch.device:
    """Where the parameters are; the CPU for a function without any."""
    device = getattr(model, "device", None)
    if device is None and isinstance(model, torch.nn.Module):
        device = next((parameter.device for parameter in model.parameters()), None)
    return torch.device(device or "cpu")
