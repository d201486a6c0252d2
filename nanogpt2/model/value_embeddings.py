"""Value embeddings: a second embedding of the token, added to the values of attention by a gate.

Source: value residual learning (ResFormer, Zhou et al., arXiv 2410.17897), as token tables in
modded-nanogpt (K. Jordan and contributors). They add parameters by the table and FLOPs only by the
gate. Chapter: value_embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.model.linear import Linear


class ValueGate(Linear):
    """One gate per key/value head: range * sigmoid(W h[..., :channels]); W = 0 gives range / 2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config.value_gate_channels, config.n_kv_head, bias=False)
        self.range = config.value_gate_range

    def forward(self, h_BTC: Tensor) -> Tensor:
        """The attention's own (normed) input (B, T, C) -> gates (B, T, K)."""
        return self.range * torch.sigmoid(super().forward(h_BTC[..., : self.in_features]))


def value_tables(config: GPTConfig) -> nn.ModuleDict:
    """One table (vocabulary, kv_dim) for each layer that has a value embedding, keyed by layer."""
    return nn.ModuleDict(
        {
            str(layer): nn.Embedding(config.padded_vocab_size, config.kv_dim)
            for layer in range(config.n_layer)
            if config.has_value_embedding(layer)
        }
    )


def add_value_embedding(v_BTKD: Tensor, value_BTF: Tensor, gate_BTK: Tensor) -> Tensor:
    """v + g * ve, with ve (B, T, K D) cut into the key/value heads."""
    return v_BTKD + gate_BTK.unsqueeze(-1) * value_BTF.to(v_BTKD.dtype).view_as(v_BTKD)
