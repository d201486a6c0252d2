"""A model small enough that a step takes milliseconds, with every kind of parameter."""

from __future__ import annotations

from pathlib import Path

import torch

from nanogpt2.config import GPTConfig
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW, build_optimizer
from nanogpt2.recipes import Recipe
from tests.drills.tiny_run import RECIPE


def tiny_model(seed: int = 0, recipe: Recipe = RECIPE) -> tuple[GPT, MuonAdamW]:
    """A model of 5 matrices a layer (not divisible by most world sizes) and its optimizer."""
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_kv_head": 2}
    model = GPT(GPTConfig.from_dict(recipe.model.to_dict() | sizes))
    model.init_weights(seed)
    # small rates: the first gradients of some parameters are rounding noise, which Adam magnifies
    return model, build_optimizer(model, recipe, dtype=torch.float32, lr_scale=0.01)


def train_steps(
    model: GPT, optimizer: MuonAdamW, first: int, count: int, rank: int = 0, world_size: int = 1
) -> list[float]:
    """``count`` steps on 8 rows that depend on the step only, dealt out over the ranks."""
    losses = []
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, 270, (8, 9), generator=generator)[rank::world_size]
        loss = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def state_of(optimizer: MuonAdamW) -> dict[str, torch.Tensor]:
    """This rank's share of the optimizer by ``parameter/state@start``, copied."""
    return {
        f"{name}/{key}@{start}": value.clone()
        for name, start, _, shares in optimizer.shard_state()
        for key, value in shares.items()
    }


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
