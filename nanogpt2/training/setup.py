"""What is decided before the first step: the tokenizer, and the model in which precision."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.kernels.backends import announcement
from nanogpt2.kernels.fp8 import fp8_serves
from nanogpt2.kernels.precision import good_at_bf16, good_at_fp16
from nanogpt2.machines import FP8_CAPABILITY, precision_of_products
from nanogpt2.model.gpt import GPT
from nanogpt2.model.linear import Linear
from nanogpt2.optim import MuonAdamW, build_optimizer
from nanogpt2.recipes import Recipe
from nanogpt2.run import Run
from nanogpt2.training.loss_scale import LossScale
from nanogpt2.training.ranks import Ranks

STEPS_TO_EARN_COMPILING = {"cuda": 50, "cpu": 5000}
"""a cold compilation costs up to a minute, and saves a tenth of a small step on a processor"""
PRODUCTS = {"fp32": torch.float32, "fp16": torch.float16} | dict.fromkeys(
    ("bf16", "fp8"), torch.bfloat16
)
"""precision of products outside of fp8's, Muon's included. Of a matrix whose singular values span
two decades, Polar Express in fp16 is 0.3% off what float64 gives and in bf16 3%; to the orthogonal
factor itself fp16 is as near as fp32 (the polynomial is off by 9%)"""


@dataclass(frozen=True)
class Learner:
    """What learns."""

    model: GPT
    forward: nn.Module
    """the model as the steps call it, compiled where that pays"""
    optimizer: MuonAdamW
    precision: str
    """what products run in: fp32, bf16, fp16, fp8"""
    attention: str
    """which backends attend, and what they cost against the best"""
    compiled: bool
    scaling: LossScale | None = None
    """in fp16, what stands between the loop and both model and optimizer"""


def build_learner(asked: Run, ranks: Ranks, tell: Callable[[str], None]) -> Learner:
    """Model and optimizer of the run, at their start values on this rank."""
    recipe, plan, device = asked.recipe, asked.dial, ranks.device
    forced = asked.precision != "auto"
    precision, remark = choose_precision(asked.wanted_precision, device, forced)
    if remark:
        tell(remark)
    if device.type != "cpu":
        torch.set_float32_matmul_precision("high")
    model = build_model(plan.model, device, precision, asked.seed)
    model.recompute = asked.loop.recompute == "on"
    model.attention_backend = asked.loop.attention_backend
    attention = announcement(plan.model, device, PRODUCTS[precision], model.attention_backend)
    tell(f"attention: {attention}")
    if precision == "fp8":
        switch_on_fp8(model, recipe)
    compiled = wants_compilation(asked.loop.compile, device, plan.iterations)
    if not compiled:
        thin_gradients(model, plan.batch_tokens // ranks.world_size)
    forward: Any = torch.compile(model, dynamic=False) if compiled else model
    optimizer = build_optimizer(
        model,
        recipe,
        lr_scale=plan.lr_scale,
        weight_decay=plan.weight_decay,
        compiled=compiled,
        dtype=PRODUCTS[precision],
    )
    for group in optimizer.param_groups:
        group["initial_lr"] *= asked.rates
    optimizer.measure_gradient = True
    scaling = LossScale(forward, optimizer, ranks, tell) if precision == "fp16" else None
    return Learner(model, forward, optimizer, precision, attention, compiled, scaling)


def load_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer in ``folder``; UserError where it is not one of ``vocab_size`` tokens."""
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size:,} tokens and the model "
            f"{vocab_size:,}; train a tokenizer of that size, or set "
            f"vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer


def choose_precision(wanted: str, device: torch.device, forced: bool) -> tuple[str, str | None]:
    """What products run in (fp32, bf16, fp16, fp8); a sentence where that is not what was wanted.

    ``forced``: the user asked for ``wanted`` by name, rather than through a recipe.
    """
    nvidia = device.type == "cuda" and torch.version.hip is None
    has_fp8 = nvidia and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    has = {"fp8": has_fp8, "bf16": good_at_bf16(device), "fp16": good_at_fp16(device)}
    best = precision_of_products(wanted, forced, {kind for kind, good in has.items() if good})
    if wanted == best:
        return best, None
    return (
        best,
        f"the recipe asks for {wanted}, at which {device.type} is no good here; using {best}",
    )


def wants_compilation(choice: str, device: torch.device, steps: int) -> bool:
    """Whether to compile: as told; auto where a compiler is at hand and ``steps`` will repay it."""
    if choice != "auto":
        return choice == "on"
    compiler = os.environ.get("CXX") or "c++"
    found = device.type == "cuda" or (device.type == "cpu" and bool(shutil.which(compiler)))
    return found and steps >= STEPS_TO_EARN_COMPILING[device.type]


def build_model(config: GPTConfig, device: torch.device, precision: str, seed: int) -> GPT:
    """A model with its start values, ready to train: fp32 masters, products in ``precision``.

    On CUDA the embedding tables are kept in bf16 where products run in it: a lookup is not a
    product, and the tables are most of the memory.
    """
    with torch.device(device):
        model = GPT(config)
    model.init_weights(seed)
    model.compute_dtype = PRODUCTS[precision]
    if model.compute_dtype == torch.bfloat16 and device.type == "cuda":
        for table in embedding_tables(model):
            table.to(torch.bfloat16)
    return model.train()


def embedding_tables(model: GPT) -> list[nn.Embedding]:
    """Token and value embeddings; not a table that is also the head."""
    tables = [] if model.config.tied_head else [model.wte]
    return [*tables, *cast(Iterable[nn.Embedding], model.value_embeds.values())]


def thin_gradients(model: GPT, tokens: int) -> None:
    """Let the tables' gradients of a short step, on a processor, hold only the rows it read.

    A step of ``tokens`` reads at most so many rows; where that is less than half a table, a dense
    gradient is mostly zeros. The optimizer makes one table's dense at a time.
    """
    for table in embedding_tables(model):
        table.sparse = table.weight.device.type == "cpu" and tokens < table.num_embeddings / 2


def switch_on_fp8(model: GPT, recipe: Recipe) -> int:
    """Let every linear layer whose sides allow it train in fp8; how many those are."""
    count = 0
    for module in model.modules():
        if isinstance(module, Linear):
            sides = (module.in_features, module.out_features)
            module.fp8 = fp8_serves(*sides, recipe.fp8_min_side)
            count += module.fp8
    return count
