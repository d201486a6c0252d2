"""The optimizer: Muon for the matrices, AdamW for the rest, sharded. Chapter: muon."""

from __future__ import annotations

from typing import Any

import torch

from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.model.gpt import GPT
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.schedules import apply_schedules
from nanogpt2.optim.sharded import MuonAdamW
from nanogpt2.recipes import Recipe, get_recipe

__all__ = ["MuonAdamW", "apply_schedules", "build_optimizer"]


def build_optimizer(
    model: GPT,
    recipe: Recipe | str,
    *,
    lr_scale: float = 1.0,
    weight_decay: float | None = None,
    compiled: bool = False,
    dtype: torch.dtype | None = None,
    process_group: Any = None,
) -> MuonAdamW:
    """The recipe's optimizer for ``model`` (already on its device), but for what is frozen.

    Rates that follow from the model's width are set here. What follows from batch and horizon comes
    from ``nanogpt2.depth.dial``: pass its ``lr_scale`` and ``weight_decay`` (default: no batch
    scaling, and the recipe's base decay). ``dtype`` is the precision of Muon's products; None takes
    bf16 where the device is good at it, else fp32.
    """
    recipe = get_recipe(recipe)
    if weight_decay is None:
        weight_decay = recipe.muon.weight_decay
    if dtype is None:
        dtype = torch.bfloat16 if good_at_bf16(model.device) else torch.float32
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = parameter_groups(named, model.config, recipe, lr_scale, weight_decay)
    return MuonAdamW(groups, compiled=compiled, dtype=dtype, process_group=process_group)
