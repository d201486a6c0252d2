"""Changed models of the chapter on value embeddings: other tables, no gates, no scalars."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variants import bigram_rows
from nanogpt2.lab.variations import Variation
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


VARIATIONS = {
    "no_gates": Variation(
        "value embeddings without gates", "0",
        "held at their means, trained gates keep most of the benefit", within=gates_open,
    ),
    "pair_tables": Variation(
        "value tables read by pairs", "-", "tables of pairs won at d12, and our model is smaller",
        within=bigram_tables,
    ),
}  # fmt: skip
"""other value embeddings than a gated table read by the token"""
