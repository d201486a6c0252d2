"""Measurements of the chapter on the plain GPT: FLOPs and bytes as counted, the first steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nanogpt2 import reported
from nanogpt2.config import GPTConfig
from nanogpt2.depth import attention_flops, flops_per_token, parameter_counts
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_recipe
from nanogpt2.memory import memory_per_rank
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.studies.plain_gpt.changes import outputs_start
from nanogpt2.training.fit import fit

GPT2_SIZES = {"small": (12, 768), "medium": (24, 1024), "large": (36, 1280), "XL": (48, 1600)}
"""layers and width (Radford et al., 2019, table 2); heads of 64 in all"""
GPT2_CONTEXT, GPT2_VOCABULARY = 1024, 50_257


def in_torchs_names(model: GPT) -> dict[str, Tensor]:
    """A plain GPT's weights by the names of ``torch.nn.TransformerEncoderLayer``."""
    own = model.state_dict()
    found = {"wte.weight": model.wte.weight, "wpe.weight": model.wpe.weight}
    found |= {f"ln_f.{end}": own[f"final_norm.{end}"] for end in ("weight", "bias")}
    places = {
        "attn.c_proj": "self_attn.out_proj",
        "attn_norm": "norm1",
        "mlp_norm": "norm2",
        "mlp.c_fc": "linear1",
        "mlp.c_proj": "linear2",
    }
    for i in range(model.config.n_layer):
        here, there = f"transformer.h.{i}", f"h.{i}"
        for end in ("weight", "bias"):
            into = [own[f"{here}.attn.{name}.{end}"] for name in ("c_q", "c_k", "c_v")]
            found[f"{there}.self_attn.in_proj_{end}"] = torch.cat(into)
            for ours, theirs in places.items():
                found[f"{there}.{theirs}.{end}"] = own[f"{here}.{ours}.{end}"]
    return found


@torch.no_grad()
def stirred(model: GPT, seed: int = 0) -> GPT:
    """Every parameter drawn at random in place, so that none is at a start that hides it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def gpt2_rows() -> list[list[Any]]:
    """Rows: GPT-2 by name, layers, width, parameters by formula, in millions by its paper."""
    rows = []
    for (name, (layers, width)), told in zip(
        GPT2_SIZES.items(), reported.GPT2_PARAMETERS, strict=True
    ):
        config = GPTConfig.gpt2(
            n_layer=layers, n_embd=width, n_head=width // 64, sequence_len=GPT2_CONTEXT,
            vocab_size=GPT2_VOCABULARY,
        )  # fmt: skip
        padding = (config.padded_vocab_size - GPT2_VOCABULARY) * width
        total = parameter_counts(config)["total"] - padding
        rows.append([name, layers, width, total, f"{told / 1e6:.0f} million"])
    return rows


def counted_flops(config: GPTConfig) -> float:
    """FLOPs of one token, forward and backward, as torch counts the products that it makes.

    Every score is counted, also those that the causal mask or a window hides.
    """
    model = GPT(config)
    model.attention_backend = "sdpa"
    idx = torch.zeros(1, config.sequence_len, dtype=torch.long)
    with torch.no_grad():
        model(idx)  # whatever is done once is done now
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(idx).flatten(0, 1), idx.flatten()).backward()
    return counter.get_total_flops() / idx.numel()


def flop_rows(configs: Mapping[str, GPTConfig]) -> list[list[Any]]:
    """Rows: name, FLOPs a token by formula, as counted, and the attention's part of the formula."""
    rows = []
    for name, config in configs.items():
        formula = flops_per_token(config)
        share = f"{attention_flops(config) / formula:.1%}"
        rows.append([name, formula, counted_flops(config), share])
    return rows


def byte_rows(config: GPTConfig, rows: int = 8) -> list[list[Any]]:
    """Rows: what a step holds in fp32 on one rank, bytes by formula and as counted."""
    recipe = small_recipe()
    model, data = GPT(config), small_data(config.vocab_size)
    optimizer = build_optimizer(model, recipe)
    inputs, targets = data.batch(0, rows, config.sequence_len, 0)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        loss = model(inputs, targets)
    loss.backward()
    gradients = _nbytes(p.grad for p in model.parameters())
    optimizer.step()
    state = (v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor))
    formula = memory_per_rank(config, recipe, 1, rows, half=False, bf16_tables=False)
    return [
        ["parameters", formula.parameters, _nbytes(model.parameters())],
        ["gradients", formula.gradients, gradients],
        ["optimizer's averages", formula.optimizer, _nbytes(state)],
        ["kept for the backward pass", formula.activations, sum(kept.values())],
    ]


def _nbytes(tensors: Any) -> int:
    return sum(t.nbytes for t in tensors if t is not None)


@torch.no_grad()
def stream_by_depth(config: GPTConfig, starts: Sequence[str]) -> dict[str, list[float]]:
    """rms of the stream before the first layer and after each, untrained, for each start."""
    idx, found = small_data(config.vocab_size).validation(4, config.sequence_len)[0], {}
    for name in starts:
        with outputs_start(name):
            model = GPT(config)
        x = model.wte(idx) + model.wpe.weight[: idx.size(1)]
        sizes = [x]
        for block in model.blocks:
            sizes.append(block(sizes[-1], None, None, None, "auto"))
        found[name] = [float(size.square().mean().sqrt()) for size in sizes]
    return found


def first_gradients(config: GPTConfig, steps: int = 3, seed: int = 0) -> list[list[Any]]:
    """Rows: a kind of matrix, and the rms of its gradients at each of the first steps."""
    kinds = {
        "queries, keys": ("c_q", "c_k"),
        "values": ("c_v",),
        "attention's output": ("attn.c_proj",),
        "MLP, first": ("c_fc",),
        "MLP, output": ("mlp.c_proj",),
    }
    model, data, recipe = GPT(config), small_data(config.vocab_size), small_recipe()
    model.init_weights(seed)
    optimizer = build_optimizer(model, recipe)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}

    def look(optimizer: torch.optim.Optimizer, step: int, _steps: int) -> None:
        for kind, ends in kinds.items():
            of = [p.grad for n, p in model.named_parameters()
                  if n.removesuffix(".weight").endswith(ends) and p.ndim == 2]  # fmt: skip
            squares = torch.cat([g.square().flatten() for g in of if g is not None])
            found[kind].append(float(squares.mean().sqrt()))

    batches = (data.batch(step, 8, config.sequence_len, seed) for step in range(steps))
    fit(model, optimizer, batches, steps, look)
    return [[kind, *sizes] for kind, sizes in found.items()]


@torch.no_grad()
def first_loss(config: GPTConfig, seed: int = 0) -> float:
    """Nats a token of an untrained model on held-out text."""
    model = GPT(config)
    model.init_weights(seed)
    return float(model(*small_data(config.vocab_size).validation(16, config.sequence_len)))
