"""The whole model: embedding, blocks, head, loss.

A plain GPT-2 (Radford et al., 2019) or the model of the 29 January 2026 run, or any rung between,
by the switches of ``GPTConfig``. Parameter names are nanochat's, so that its checkpoints load.
Chapter: plain_gpt.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nanogpt2 import depth
from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.kernels.cross_entropy import cross_entropy, softcap_logits
from nanogpt2.kernels.loss import softcapped_cross_entropy
from nanogpt2.model.attention import Cache, CausalSelfAttention
from nanogpt2.model.linear import Linear
from nanogpt2.model.mlp import MLP
from nanogpt2.model.norm import Norm
from nanogpt2.model.residual import linear_start, previous_token, smear
from nanogpt2.model.rope import rope_tables
from nanogpt2.model.value_embeddings import value_tables


class Block(nn.Module):
    """x += attn(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn_norm, self.mlp_norm = Norm(config), Norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        value: Tensor | None,
        cache: Cache | None,
        backend: str,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.attn_norm(x), rotation, value, cache, backend)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Tokens (B, T) in, fp32 logits (B, T, V) or a loss out.

    Products run in ``compute_dtype`` (default fp32) whatever the parameters are kept in: precision
    is chosen here, not by autocast, whose treatment of norms changed between torch versions.
    """

    lm_head: Linear
    embedding_norm: Norm
    smear_gate: Linear
    resid_lambdas: Tensor
    x0_lambdas: Tensor
    smear_lambda: Tensor
    backout_lambda: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.attention_backend = "auto"
        self.recompute = False  # in training, a block keeps what went in and runs twice
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, i) for i in range(config.n_layer)),
            }
        )
        if config.positions == "learned":
            self.transformer["wpe"] = nn.Embedding(config.sequence_len, config.n_embd)
        self.value_embeds = value_tables(config)
        if not config.tied_head:
            self.lm_head = Linear(config.n_embd, config.padded_vocab_size, bias=False)
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        self.final_norm = Norm(config)
        if config.residual_scalars:
            self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer))
        if config.smear:
            self.smear_gate = Linear(config.smear_channels, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.empty(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.empty(1))
        if config.positions == "rope":
            # Long enough for prompts far beyond T (few-shot evaluation); a few MiB in bf16.
            length = max(10 * config.sequence_len, 8192)
            cos, sin = rope_tables(length, config.head_dim, config.rope_base)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, seed: int = 0) -> None:
        """Start values of SPEC section 2: uniform inputs, zero outputs, a quiet head."""
        config = self.config
        generator = torch.Generator(self.device).manual_seed(seed)
        bound = math.sqrt(3.0 / config.n_embd)  # standard deviation 1 / sqrt(width)

        def uniform(weight: Tensor, low: float, high: float) -> None:
            weight.uniform_(low, high, generator=generator)

        self.wte.weight.normal_(0.0, config.wte_std, generator=generator)
        if config.positions == "learned":
            # GPT-2's positions start at half the spread of its tokens
            self.wpe.weight.normal_(0.0, config.wte_std / 2, generator=generator)
        if not config.tied_head:
            self.lm_head.weight.normal_(0.0, config.lm_head_std, generator=generator)
        for block in self.blocks:
            for name, layer in block.named_modules():
                if not isinstance(layer, Linear):
                    continue
                if layer.bias is not None:
                    layer.bias.zero_()
                if name.endswith("c_proj"):
                    layer.weight.zero_()
                elif name.endswith("ve_gate"):
                    uniform(layer.weight, 0.0, config.value_gate_start)
                else:
                    scale = config.mlp_start_scale if name == "mlp.c_fc" else 1.0
                    uniform(layer.weight, -scale * bound, scale * bound)
        for table in self.value_embeds.values():
            assert isinstance(table, nn.Embedding)
            uniform(table.weight, -bound, bound)
        for module in self.modules():
            if isinstance(module, Norm):
                if module.weight is not None:
                    module.weight.fill_(1.0)
                if module.bias is not None:
                    module.bias.zero_()
        if config.residual_scalars:
            self.resid_lambdas.copy_(linear_start(config.resid_lambda_start, config.n_layer))
            self.x0_lambdas.copy_(linear_start(config.x0_lambda_start, config.n_layer))
        if config.smear:
            uniform(self.smear_gate.weight, 0.0, 0.02)
            self.smear_lambda.zero_()
        if config.backout:
            self.backout_lambda.fill_(config.backout_start)

    @property
    def wte(self) -> nn.Embedding:
        """The token embedding, (padded vocabulary, C)."""
        return cast(nn.Embedding, self.transformer["wte"])

    @property
    def wpe(self) -> nn.Embedding:
        """The learned positions, (T, C), where ``config.positions`` asks for them."""
        return cast(nn.Embedding, self.transformer["wpe"])

    @property
    def blocks(self) -> list[Block]:
        """The layers, first to last."""
        return list(cast(nn.ModuleList, self.transformer["h"]))  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.wte.weight.device

    @property
    def window_sizes(self) -> list[tuple[int, int]]:
        """(left, right) of every layer."""
        return self.config.window_sizes()

    @property
    def max_positions(self) -> int:
        """The longest text it can read: its learned positions, or rows of its rotary tables."""
        learned = self.config.positions == "learned"
        return self.wpe.num_embeddings if learned else self.cos.size(0)

    @property
    def head_weight(self) -> Tensor:
        """(padded vocabulary, C)."""
        return self.wte.weight if self.config.tied_head else self.lm_head.weight

    def flops_per_token(self) -> int:
        """FLOPs of training on one token; see ``nanogpt2.depth.flops_per_token``."""
        return depth.flops_per_token(self.config)

    def parameter_counts(self) -> dict[str, int]:
        """Counted from the tensors, by the kinds of ``nanogpt2.depth.parameter_counts``."""
        counts = dict.fromkeys(depth.parameter_counts(self.config), 0)
        for name, parameter in self.named_parameters():
            counts[depth.parameter_kind(name, parameter.ndim)] += parameter.numel()
        counts["total"] = sum(p.numel() for p in self.parameters())
        return counts

    def hidden(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """Tokens (B, T) -> the stream after the last norm (B, T, C), in ``compute_dtype``.

        Raises UserError where a position lies beyond the model's positions.
        """
        config, dtype = self.config, self.compute_dtype
        T, room = idx.size(1), self.max_positions
        if cache is None and room < T:
            raise UserError(f"the text has {T} tokens and the model has {room} positions; cut it")
        positions = slice(T) if cache is None else cache.positions(T)
        x = self.wte(idx).to(dtype)
        rotation = None
        if config.positions == "learned":
            x = x + self.wpe.weight[positions].to(dtype)
        else:
            rotation = self.cos[positions], self.sin[positions]
        if config.embedding_norm:
            x = self.embedding_norm(x)
        if config.smear:
            before = previous_token(x) if cache is None else cache.previous_embedding(x)
            gate = self.smear_gate(x[..., : config.smear_channels])
            x = smear(x, before, gate, self.smear_lambda)
        x0, halfway = x, x
        for i, block in enumerate(self.blocks):
            if config.residual_scalars:
                x = self.resid_lambdas[i] * x + self.x0_lambdas[i] * x0
            value = self.value_embeds[str(i)](idx) if config.has_value_embedding(i) else None
            inputs = (x, rotation, value, cache, self.attention_backend)
            again = self.recompute and self.training
            x = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
            if i == config.n_layer // 2:
                halfway = x
        if config.backout:
            x = x - self.backout_lambda.to(dtype) * halfway
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> fp32 (..., V), softcapped: c tanh(z / c)."""
        z = F.linear(hidden, self.head_weight[: self.config.vocab_size].to(hidden.dtype))
        return softcap_logits(z.float(), self.config.logit_softcap)

    def loss(self, hidden: Tensor, targets: Tensor, loss_reduction: str = "mean") -> Tensor:
        """Cross-entropy of (B, T, C) against (B, T) tokens; -1 is ignored; "none" gives (B*T,)."""
        config, rows, labels = self.config, hidden.flatten(0, -2), targets.flatten()
        if not config.tied_head and self.lm_head.fp8 and self.training:
            logits = self.lm_head(rows)[:, : config.vocab_size]
            return cross_entropy(logits, labels, config.logit_softcap, loss_reduction)
        return softcapped_cross_entropy(
            rows,
            self.head_weight,
            labels,
            config.vocab_size,
            config.logit_softcap,
            reduction=loss_reduction,
        )

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        loss_reduction: str = "mean",
        cache: Cache | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> logits (B, T, V) fp32, or with ``targets`` (B, T) the loss."""
        hidden = self.hidden(idx, cache)
        if targets is None:
            return self.logits(hidden)
        return self.loss(hidden, targets, loss_reduction)
