"""Changed models of the chapter on value embeddings: other tables, no gates, no scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variants import bigram_rows
from nanogpt2.model.value_embeddings import add_value_embedding, value_tables


class BigramTable(nn.Embedding):
    """Read by a hash of two tokens in place of one token's number."""

    def forward(self, idx: Tensor) -> Tensor:
        """(B, T) -> (B, T, K D)."""
        return super().forward(bigram_rows(idx, self.num_embeddings))


class EarlyTable(nn.Embedding):
    """Failure: read one position ahead, as if inputs and targets had been mixed up."""

    def forward(self, idx: Tensor) -> Tensor:
        """(B, T) -> (B, T, K D)."""
        return super().forward(torch.cat((idx[:, 1:], idx[:, -1:]), dim=1))


def _tables(kind: type[nn.Embedding], times: int = 1) -> Patch:
    """Models made within the block have tables of that kind, with ``times`` as many rows."""

    def made(config: GPTConfig) -> nn.ModuleDict:
        rows = times * config.padded_vocab_size
        return nn.ModuleDict({name: kind(rows, config.kv_dim) for name in value_tables(config)})

    return patched("nanogpt2.model.gpt.value_tables", made)


def one_token_early() -> Patch:
    """Failure: every value table is read one token too early, which shows the answer."""
    return _tables(EarlyTable)


def bigram_tables() -> Patch:
    """Value tables of eight times the rows, read by hashed pairs of tokens."""
    return _tables(BigramTable, times=8)


def gates_open() -> Patch:
    """Tables are added without a gate: it stays at the 1 that it starts with."""

    def ungated(v: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        one = torch.ones_like(gate) + 0 * gate  # so that the gate has a gradient, of 0
        return add_value_embedding(v, value, one)

    return patched("nanogpt2.model.attention.add_value_embedding", ungated)


CHANGES: dict[str, dict[str, Any]] = {
    "no value embeddings": {"value_embeddings": False},
    "no residual scalars": {"residual_scalars": False},
    "neither": {"value_embeddings": False, "residual_scalars": False},
    "value embeddings without gates": {},
    "value tables read by pairs": {},
}
"""What is compared with the book's baseline."""
WITHIN: dict[str, Callable[[], Patch]] = {
    "value embeddings without gates": gates_open,
    "value tables read by pairs": bigram_tables,
}
