"""Which parameter is updated how: matrices by Muon, grouped by shape; the rest by AdamW, by kind.

Chapter: muon.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from nanogpt2.config import GPTConfig
from nanogpt2.depth import parameter_kind
from nanogpt2.recipes import AdamWGroup, Recipe

WIDTH_OF_RATES = 768
"""the width at which AdamW's rates were tuned"""

Named = list[tuple[str, nn.Parameter]]


def _adamw_choice(name: str, kind: str, config: GPTConfig, recipe: Recipe) -> AdamWGroup:
    if kind == "wte" and config.tied_head:
        return recipe.lm_head  # the table is the head too, and the head needs the smaller steps
    if kind == "scalars":
        scalar = {"resid_lambdas": recipe.resid_lambdas, "x0_lambdas": recipe.x0_lambdas}
        return scalar.get(name, recipe.mixers)
    choice = {
        "wte": recipe.wte,
        "positions": recipe.lm_head if config.tied_head else recipe.wte,
        "value_embeddings": recipe.value_embeddings,
        "lm_head": recipe.lm_head,
        "vectors": recipe.vectors,
        "matrices": recipe.matrices_adamw,
    }
    return choice[kind]


def parameter_groups(
    named: Named, config: GPTConfig, recipe: Recipe, lr_scale: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for ``torch.optim.Optimizer``; each carries ``kind``, ``names`` and ``initial_lr``.

    ``lr_scale`` is the batch's factor sqrt(B / rates_batch_tokens); ``weight_decay`` is Muon's
    at the first step.
    """
    width_scale = (config.n_embd / WIDTH_OF_RATES) ** -0.5
    adamw: dict[AdamWGroup, Named] = defaultdict(list)
    muon: dict[tuple[int, ...], Named] = defaultdict(list)
    for name, parameter in named:
        kind = parameter_kind(name, parameter.ndim)
        if kind == "matrices" and recipe.matrices == "muon":
            muon[tuple(parameter.shape)].append((name, parameter))
        else:
            adamw[_adamw_choice(name, kind, config, recipe)].append((name, parameter))
    groups: list[dict[str, Any]] = [
        {
            "kind": "adamw",
            "lr": choice.lr
            * (width_scale if choice.width_scaled else 1.0)
            * (lr_scale if choice.batch_scaled else 1.0),
            "betas": choice.betas,
            "eps": 1e-10,
            "weight_decay": choice.weight_decay,
            "named": members,
        }
        for choice, members in adamw.items()
    ]
    settings = recipe.muon
    groups += [
        {
            "kind": "muon",
            "lr": settings.lr * lr_scale,
            "momentum": settings.momentum[0],
            "beta2": settings.beta2,
            "weight_decay": weight_decay,
            "initial_weight_decay": weight_decay,
            "iterations": settings.iterations,
            "divisor": settings.divisor,
            "equalize_rows": settings.equalize_rows,
            "fix_norm": settings.fix_norm,
            "polynomial": settings.polynomial,
            "cautious": settings.cautious,
            "named": members,
        }
        for members in muon.values()
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
        group["names"], group["params"] = map(list, zip(*group.pop("named"), strict=True))
    return groups
