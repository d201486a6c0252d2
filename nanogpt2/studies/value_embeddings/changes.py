"""Changed models of the chapter on value embeddings: other tables, no gates, no scalars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.lab.seams import patched
from nanogpt2.model.value_embeddings import add_value_embedding, value_tables

PRIMES = (36313, 27191)


def bigram_rows(idx: Tensor, rows: int) -> Tensor:
    """Addresses (B, T) of pairs: a hash of each token and the one before it (0 at the start)."""
    before = F.pad(idx[:, :-1], (1, 0))
    return (PRIMES[0] * idx + PRIMES[1] * before) % rows


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


@contextmanager
def _tables(kind: type[nn.Embedding], times: int = 1) -> Iterator[None]:
    """Models made within the block have tables of that kind, with ``times`` as many rows."""

    def made(config: GPTConfig) -> nn.ModuleDict:
        rows = times * config.padded_vocab_size
        return nn.ModuleDict({name: kind(rows, config.kv_dim) for name in value_tables(config)})

    with patched("nanogpt2.model.gpt.value_tables", made):
        yield


@contextmanager
def one_token_early() -> Iterator[None]:
    """Failure: every value table is read one token too early, which shows the answer."""
    with _tables(EarlyTable):
        yield


@contextmanager
def bigram_tables() -> Iterator[None]:
    """Value tables of eight times the rows, read by hashed pairs of tokens."""
    with _tables(BigramTable, times=8):
        yield


@contextmanager
def gates_open() -> Iterator[None]:
    """Tables are added without a gate: it stays at the 1 that it starts with."""

    def ungated(v: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        one = torch.ones_like(gate) + 0 * gate  # so that the gate has a gradient, of 0
        return add_value_embedding(v, value, one)

    with patched("nanogpt2.model.attention.add_value_embedding", ungated):
        yield


CHANGES: dict[str, dict[str, Any]] = {
    "no value embeddings": {"value_embeddings": False},
    "no residual scalars": {"residual_scalars": False},
    "neither": {"value_embeddings": False, "residual_scalars": False},
    "value embeddings without gates": {},
    "value tables read by pairs": {},
}
"""What is compared with the book's baseline."""
WITHIN: dict[str, Callable[[], Any]] = {
    "value embeddings without gates": gates_open,
    "value tables read by pairs": bigram_tables,
}
