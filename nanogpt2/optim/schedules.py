"""What changes from step to step: learning rate, Muon's momentum, Muon's weight decay.

Pure functions of the step; ``apply_schedules`` writes them into an optimizer's groups.
Chapters: muon, loop.
"""

from __future__ import annotations

import math

import torch

from nanogpt2.recipes import Recipe


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The factor on every learning rate: linear warm-up, constant, linear warm-down."""
    warmdown = round(recipe.warmdown_ratio * total)
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if step <= total - warmdown:
        return 1.0
    left = (total - step) / warmdown
    return left + (1 - left) * recipe.final_lr


def muon_momentum(recipe: Recipe, step: int, total: int) -> float:
    """Linear warm-up; where the recipe says so, a linear fall over the warm-down."""
    muon = recipe.muon
    start, peak = muon.momentum
    if step < muon.momentum_steps:
        return start + (peak - start) * step / muon.momentum_steps
    warmdown = round(recipe.warmdown_ratio * total)
    if muon.momentum_end is not None and step > total - warmdown:
        passed = (step - (total - warmdown)) / warmdown
        return peak + (muon.momentum_end - peak) * passed
    return peak


def weight_decay(recipe: Recipe, step: int, total: int) -> float:
    """The factor on Muon's weight decay: 1 at first, 0 at step ``total``, or 1 throughout."""
    if recipe.muon.weight_decay_schedule == "constant":
        return 1.0
    if recipe.muon.weight_decay_schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / total))
    return 1 - step / total


def apply_schedules(
    optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, total: int
) -> None:
    """Set lr, momentum and weight decay of every group for ``step`` of ``total``."""
    factor = learning_rate(recipe, step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
        if group["kind"] == "muon":
            group["momentum"] = muon_momentum(recipe, step, total)
            group["weight_decay"] = group["initial_weight_decay"] * weight_decay(
                recipe, step, total
            )
