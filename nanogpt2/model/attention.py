"""Causal self-attention: rotary positions, QK-norm, value embeddings, windows, grouped queries.

Sources: Vaswani et al. (arXiv 1706.03762); QK-norm (Henry et al., arXiv 2010.04245); grouped
queries (Ainslie et al., arXiv 2305.13245). Chapters: rotary_positions, norms, value_embeddings,
windows.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.kernels.attention import attention
from nanogpt2.model.linear import Linear
from nanogpt2.model.norm import rms_norm
from nanogpt2.model.rope import rotate
from nanogpt2.model.value_embeddings import ValueGate, add_value_embedding


class Cache(Protocol):
    """What the model asks of a cache; ``nanogpt2.inference.kv_cache`` is one."""

    def positions(self, n_tokens: int) -> Tensor:
        """Absolute positions (B, T) of the ``n_tokens`` that come next."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Append k, v (B, T, K, D) to ``layer`` and attend with q (B, T, H, D)."""

    def previous_embedding(self, x: Tensor) -> Tensor:
        """x (B, T, C) one token late, beginning with the last token of the call before."""

    def advance(self, n_tokens: int) -> None:
        """All layers have seen these tokens."""


class CausalSelfAttention(nn.Module):
    """One layer's attention; ``window`` keys to the left are visible."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.window = config.window_sizes()[layer][0]
        self.head_dim = config.head_dim
        self.qk_norm, self.qk_scale = config.qk_norm, config.qk_scale
        self.c_q = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.c_k = Linear(config.n_embd, config.kv_dim, bias=config.bias)
        self.c_v = Linear(config.n_embd, config.kv_dim, bias=config.bias)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=config.bias)
        if config.has_value_embedding(layer):
            self.ve_gate = ValueGate(config)

    def forward(
        self,
        h_BTC: Tensor,
        rotation: tuple[Tensor, Tensor] | None = None,
        value_BTF: Tensor | None = None,
        cache: Cache | None = None,
        backend: str = "auto",
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); ``rotation`` holds cos and sin, ``value`` the value embedding."""
        B, T, _ = h_BTC.shape
        q, k, v = (f(h_BTC).view(B, T, -1, self.head_dim) for f in (self.c_q, self.c_k, self.c_v))
        if value_BTF is not None:
            v = add_value_embedding(v, value_BTF, self.ve_gate(h_BTC))
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if self.qk_scale != 1.0:
            q, k = q * self.qk_scale, k * self.qk_scale
        if cache is None:
            y = attention(q, k, v, self.window, backend=backend)
        else:
            y = cache.attend(self.layer, q, k, v, self.window)
        return self.c_proj(y.reshape(B, T, -1))
