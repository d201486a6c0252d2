"""The model as a configuration: one named switch for each technique.

The defaults are the model of the 29 January 2026 run at depth 12; ``GPTConfig.gpt2`` switches
every technique off, which gives a plain GPT-2 (Radford et al., 2019). The rungs between them are
the ladder that the book climbs. Chapter: plain_gpt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from nanogpt2.errors import UserError
from nanogpt2.settings import Count, Number, Numbers, Scale, from_dict, settings

MOST_LAYERS = 1 << 16
"""a number that is far too large must not take the memory to say so"""
Layers = Annotated[int, Field(ge=1, lt=MOST_LAYERS)]
FULL_WINDOW, SHORT_WINDOW = "L", "S"


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


@settings
class GPTConfig:
    """Sizes and switches of a model; raises UserError when they contradict each other."""

    sequence_len: Count = 2048
    """T, the context length in tokens"""
    vocab_size: Count = 32768
    """V; tables hold it rounded up to a multiple of 64, logits are cropped back to it"""
    n_layer: Layers = 12
    """L"""
    n_head: Count = 6
    """H, query heads"""
    n_kv_head: Count = 6
    """K, key/value heads; fewer than H is grouped-query attention (Ainslie et al., 2305.13245)"""
    n_embd: Count = 768
    """C, the width of the residual stream"""
    window_pattern: str = "SSSL"
    """tiled over the layers: L sees everything, S a short window; the last layer is always L"""
    short_window_divisor: Count = 2
    """S sees T / divisor keys to the left ..."""
    short_window_multiple: Count = 1
    """... rounded up to a multiple of this (1: rounded down to a whole key)"""

    positions: Literal["rope", "learned"] = "rope"
    """rotary positions (Su et al., 2104.09864) or GPT-2's learned table"""
    rope_base: Annotated[Number, Field(ge=1)] = 10_000.0
    """the slowest rotary frequency is about 1 / base"""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm (Zhang and Sennrich, 1910.07467) or LayerNorm (Ba et al., 1607.06450)"""
    norm_learnable: bool = False
    """give each norm a gain (and LayerNorm its bias)"""
    embedding_norm: bool = True
    """normalize the embedding before the first block"""
    bias: bool = False
    """biases in the linear layers"""
    qk_norm: bool = True
    """RMSNorm on queries and keys after the rotation (Henry et al., 2010.04245)"""
    qk_scale: Number = 1.0
    """factor on queries and keys after QK-norm"""
    activation: Literal["relu2", "gelu", "swiglu"] = "relu2"
    """squared ReLU (So et al., 2109.08668), GELU (1606.08415) or SwiGLU (Shazeer, 2002.05202)"""
    tied_head: bool = False
    """share the embedding with the head, as GPT-2 does (Press and Wolf, 1608.05859)"""
    logit_softcap: Scale = 15.0
    """c in c tanh(z / c) over the logits (Gemma 2, 2408.00118); 0 switches it off"""
    value_embeddings: bool = True
    """gated token embeddings added to the values of every second layer, the last one included"""
    value_gate_channels: Count = 32
    """how many channels of the attention's input the gate reads"""
    value_gate_range: Number = 2.0
    """the gate is range * sigmoid(...)"""
    residual_scalars: bool = True
    """per layer x <- resid_lambda x + x0_lambda x0, with x0 the embedding after its norm"""
    smear: bool = False
    """add a gated part of the previous token's embedding to each token's"""
    smear_channels: Count = 24
    """how many channels the smear gate reads"""
    backout: bool = False
    """before the last norm, take back a learned part of the stream as it was half way up"""

    wte_std: Scale = 1.0
    """start: standard deviation of the token embedding"""
    lm_head_std: Scale = 0.001
    """start: standard deviation of the head"""
    mlp_start_scale: Scale = 1.0
    """start: factor on the MLP's first matrix"""
    value_gate_start: Scale = 0.0
    """start: the value gates are uniform in [0, this); 0 gives a gate of range / 2"""
    resid_lambda_start: Numbers = (1.0, 1.0)
    """start: resid_lambda of the first and of the last layer, linear between them"""
    x0_lambda_start: Numbers = (0.1, 0.1)
    """start: x0_lambda of the first and of the last layer, linear between them"""
    backout_start: Number = 0.2
    """start: backout_lambda (at the commit of run 6 it may have come up as 0)"""

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise UserError(
                f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}; "
                "choose a width that is a multiple of the number of heads"
            )
        if self.n_head % self.n_kv_head:
            raise UserError(
                f"n_head {self.n_head} is not divisible by n_kv_head {self.n_kv_head}; "
                "every key/value head must serve the same number of query heads"
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise UserError(
                f"rotary positions turn pairs of channels and the head size is {self.head_dim}; "
                "choose an even head size"
            )
        if self.value_embeddings and self.value_gate_channels > self.n_embd:
            raise UserError(
                f"value_gate_channels {self.value_gate_channels} exceeds n_embd {self.n_embd}; "
                "the gate reads the first channels of the stream"
            )
        if self.smear and self.smear_channels > self.n_embd:
            raise UserError(
                f"smear_channels {self.smear_channels} exceeds n_embd {self.n_embd}; "
                "the gate reads the first channels of the stream"
            )
        if not self.window_pattern or set(self.window_pattern) - {FULL_WINDOW, SHORT_WINDOW}:
            raise UserError(
                f"window_pattern is {self.window_pattern!r}; it is made of the letters "
                "L (full window) and S (short window), for example SSSL"
            )
        if self.backout and self.n_layer < 2:
            raise UserError("backout needs at least 2 layers; switch it off or add a layer")

    @classmethod
    def gpt2(cls, **sizes: Any) -> GPTConfig:
        """Every technique off: the architecture of GPT-2, at the given sizes.

        ``n_kv_head`` follows ``n_head`` unless given.
        """
        off: dict[str, Any] = {
            "window_pattern": "L",
            "positions": "learned",
            "norm": "layer",
            "norm_learnable": True,
            "embedding_norm": False,
            "bias": True,
            "qk_norm": False,
            "activation": "gelu",
            "tied_head": True,
            "logit_softcap": 0.0,
            "value_embeddings": False,
            "residual_scalars": False,
            "wte_std": 0.02,
        }
        if "n_head" in sizes:
            off["n_kv_head"] = sizes["n_head"]
        return cls(**{**off, **sizes})

    @property
    def head_dim(self) -> int:
        """D, the size of one head."""
        return self.n_embd // self.n_head

    @property
    def kv_dim(self) -> int:
        """K D, the width of keys, values and value embeddings."""
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token tables: V rounded up to a multiple of 64, for even tiles and shards."""
        return _round_up(self.vocab_size, 64)

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP; SwiGLU's third matrix is paid for by a width of 8/3 C."""
        if self.activation == "swiglu":
            return _round_up(8 * self.n_embd // 3, 64)
        return 4 * self.n_embd

    @property
    def short_window(self) -> int:
        """How many keys to the left a short window sees."""
        if self.short_window_multiple == 1:
            return self.sequence_len // self.short_window_divisor
        keys = -(-self.sequence_len // (self.short_window_divisor * self.short_window_multiple))
        return keys * self.short_window_multiple

    def window_sizes(self) -> list[tuple[int, int]]:
        """(left, right) of every layer: keys seen before the query, and after it (0: causal)."""
        pattern = self.window_pattern
        sizes = {FULL_WINDOW: (self.sequence_len, 0), SHORT_WINDOW: (self.short_window, 0)}
        windows = [sizes[pattern[layer % len(pattern)]] for layer in range(self.n_layer)]
        return [*windows[:-1], sizes[FULL_WINDOW]]

    def has_value_embedding(self, layer: int) -> bool:
        """Whether ``layer`` has a value embedding: every second one, counted from the last."""
        return self.value_embeddings and layer % 2 == (self.n_layer - 1) % 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """The inverse of ``to_dict``; an unknown name raises UserError."""
        return from_dict(cls, values, "the model configuration")
