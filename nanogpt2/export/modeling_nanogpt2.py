"""A model trained by nanogpt2 for the ``transformers`` library.

Rotary positions, QK-norm, windows, value embeddings, residual scalars, smear and backout: which of
them a model has, ``config.json`` says. Needs torch and transformers, and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from nanogpt2.kernels.cross_entropy import softcap_logits
from nanogpt2.kernels.windows import sees
from nanogpt2.model.mlp import MLP
from nanogpt2.model.norm import Norm, rms_norm
from nanogpt2.model.residual import smear
from nanogpt2.model.rope import rotate
from nanogpt2.model.value_embeddings import ValueGate, add_value_embedding

Linear = nn.Linear


class NanoGPT2Config(PreTrainedConfig):
    """The switches of ``nanogpt2.GPTConfig``, and the sizes that follow from them."""

    model_type = "nanogpt2"


class Attention(nn.Module):
    """Causal attention through a window, over the keys of a cache and its own."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        wide, narrow, bias = config.n_embd, config.kv_dim, config.bias
        self.c_q = Linear(wide, wide, bias=bias)
        self.c_k = Linear(wide, narrow, bias=bias)
        self.c_v = Linear(wide, narrow, bias=bias)
        self.c_proj = Linear(wide, wide, bias=bias)
        if layer in config.value_layers:
            self.ve_gate = ValueGate(config)

    def forward(
        self,
        h: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        value: Tensor | None,
        mask: Tensor,
        cache: Any,
    ) -> Tensor:
        """h (B, T, C) -> (B, T, C); ``mask`` (B or 1, 1, T, S) says which keys a query sees."""
        (B, T, _), config = h.shape, self.config
        q, k, v = (f(h).view(B, T, -1, config.head_dim) for f in (self.c_q, self.c_k, self.c_v))
        if value is not None:
            v = add_value_embedding(v, value, self.ve_gate(h))
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if config.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        if config.qk_scale != 1.0:
            q, k = q * config.qk_scale, k * config.qk_scale
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        shared = config.n_head // config.n_kv_head
        k, v = (x.repeat_interleave(shared, dim=1) for x in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, -1))


class Block(nn.Module):
    """x += attn(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.attn_norm, self.mlp_norm = Norm(config), Norm(config)
        self.attn, self.mlp = Attention(config, layer), MLP(config)

    def forward(self, x: Tensor, *how: Any) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.attn_norm(x), *how)
        return x + self.mlp(self.mlp_norm(x))


class NanoGPT2ForCausalLM(PreTrainedModel, GenerationMixin):
    """Tokens in, softcapped logits out; the names of its parameters are those of nanogpt2."""

    config_class = NanoGPT2Config
    base_model_prefix = "model"
    _supports_sdpa = True
    accepts_loss_kwargs = False  # its loss is a mean: over how much, is for the trainer to weigh

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        rows, wide = config.padded_vocab_size, config.n_embd
        blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layer))
        self.transformer: Any = nn.ModuleDict({"wte": nn.Embedding(rows, wide), "h": blocks})
        if config.positions == "learned":
            self.transformer["wpe"] = nn.Embedding(config.sequence_len, wide)
        self.value_embeds = nn.ModuleDict(
            {str(i): nn.Embedding(rows, config.kv_dim) for i in config.value_layers}
        )
        if not config.tied_head:
            self.lm_head = Linear(wide, rows, bias=False)
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        self.final_norm = Norm(config)
        if config.residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if config.smear:
            self.smear_gate = Linear(config.smear_channels, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.transformer["wte"]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **unused: Any,
    ) -> CausalLMOutputWithPast:
        """Tokens (B, T) -> logits (B, T, V) in fp32, or of the last ``logits_to_keep`` tokens.

        ``attention_mask`` (B, S) is 0 where padding stands, on the left; ``labels`` (B, T) are the
        tokens themselves, -100 where none counts.
        """
        config, T, cache = self.config, input_ids.size(1), past_key_values
        if cache is None and use_cache:
            cache = DynamicCache()
        past = 0 if cache is None else cache.get_seq_length()
        at = torch.arange(past, past + T, device=input_ids.device)
        real = None if attention_mask is None else attention_mask.bool()
        x = self.transformer["wte"](input_ids)
        rotation = None
        positions = at[None] if position_ids is None else position_ids
        if config.positions == "learned":
            x = x + self.transformer["wpe"](positions)
        else:
            rotation = self._rotation(positions)
        if config.embedding_norm:
            x = self.embedding_norm(x)
        if config.smear:
            gate = self.smear_gate(x[..., : config.smear_channels])
            x = smear(x, self._previous(x, cache, past, real), gate, self.smear_lambda)
        masks = {w: self._mask(at, w, real) for w in set(config.window_sizes)}
        x0, halfway = x, x
        for i, block in enumerate(self.transformer["h"]):
            if config.residual_scalars:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            value = self.value_embeds[str(i)](input_ids) if i in config.value_layers else None
            x = block(x, rotation, value, masks[config.window_sizes[i]], cache)
            if i == config.n_layer // 2:
                halfway = x
        if config.backout:
            x = x - self.backout_lambda * halfway
        x = self.final_norm(x[:, -logits_to_keep:])
        head: Any = self.transformer["wte"] if config.tied_head else self.lm_head
        logits = F.linear(x, head.weight[: config.vocab_size]).float()
        logits = softcap_logits(logits, config.logit_softcap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin (B, T, D/2), rounded to bf16 as in training."""
        size = self.config.head_dim
        pairs = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)
        angle = positions[..., None].float() * self.config.rope_base ** (-pairs / size)
        return angle.cos().bfloat16(), angle.sin().bfloat16()

    def _mask(self, at: Tensor, window: int, real: Tensor | None) -> Tensor:
        """(B or 1, 1, T, S): the key lies in the window and is no padding; itself each sees."""
        key = torch.arange(int(at[-1]) + 1, device=at.device)
        mask = sees(at[:, None], key, window)[None, None]
        if real is not None:
            mask = mask & real[:, None, None] | (at[:, None] == key)
        return mask

    def _previous(self, x: Tensor, cache: Any, past: int, real: Tensor | None) -> Tensor:
        """x one token late, zeros before a text's first token.

        The cache keeps what it needs in a layer of its own, behind those of attention: there it is
        reordered and cut with the rest.
        """
        before = F.pad(x, (0, 0, 1, 0))[:, :-1]
        if cache is not None:
            missing = self.config.n_layer + 1 - len(cache.layers)
            cache.layers += [DynamicLayer() for _ in range(missing)]
            kept, _ = cache.layers[self.config.n_layer].update(x[:, None], x[:, None, :, :0])
            before = F.pad(kept[:, 0], (0, 0, 1, 0))[:, past:-1]
        if real is not None:
            before = before * F.pad(real, (1, 0))[:, past:-1, None]
        return before
