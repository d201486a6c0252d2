"""The ladder: from a plain GPT-2 with AdamW to run 1, a technique a rung, as data.

A rung says what stands in a recipe's fields *without* it. All rungs off are the foot of the ladder,
one off is run 1 without that technique. What came after run 1 is in ``later_changes``.
``python -m nanogpt2.rungs --diff A B`` prints how two of them, or any two recipes, differ.

Chapter: ladder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanogpt2.errors import UserError, run_command
from nanogpt2.recipes import RECIPES, YARDSTICK, Recipe, differences, get_recipe

FOOT = "gpt2"
TOP = "top"


@dataclass(frozen=True)
class Rung:
    """One technique."""

    key: str
    title: str
    without: Mapping[str, Any]
    """settings of a recipe that lacks it"""
    alone: Mapping[str, Any] = field(default_factory=dict)
    """settings that are right only where it alone is missing from the top: rates tuned there"""


RUNGS = (
    Rung("rope", "rotary positions", {"positions": "learned"}),
    Rung("rmsnorm", "RMSNorm without parameters", {"norm": "layer", "norm_learnable": True}),
    Rung("no_bias", "no biases", {"bias": True}),
    Rung("relu2", "squared ReLU", {"activation": "gelu"}),
    # a table that is the head too starts as quiet as GPT-2's
    Rung("untied", "untied head", {"tied_head": True}, alone={"wte_std": 0.02}),
    Rung(
        "embedding_norm",
        "norm after the embedding",
        # a table that no norm follows starts small, and is learned as slowly as a head
        {"embedding_norm": False, "wte_std": 0.02, "wte.lr": 0.004},
    ),
    Rung("qk_norm", "QK-norm", {"qk_norm": False}),
    Rung("softcap", "softcap", {"logit_softcap": 0.0}),
    Rung("best_fit", "rows that begin with a document", {"packing": "stream"}),
    Rung("muon", "Muon for the matrices", {"matrices": "adamw", "warmup_steps": 32}),
    Rung(
        "polar_express",
        "Polar Express for Newton-Schulz",
        {"muon.polynomial": "newton_schulz", "muon.divisor": 1.0},
    ),
    Rung("normuon", "NorMuon's variance reduction", {"muon.beta2": 1.0}),
    Rung(
        "cautious",
        "cautious decay that falls to zero",
        {"muon.cautious": False, "muon.weight_decay_schedule": "constant"},
    ),
    Rung("value_embeddings", "value embeddings", {"value_embeddings": False}),
    Rung("residual_scalars", "residual scalars and x0", {"residual_scalars": False}),
    Rung("windows", "windows SSSL", {"window_pattern": "L"}),
    Rung("warmdown", "warm-down over one half", {"warmdown_ratio": 1.0}),
    Rung("x0_beta", "x0's first beta of 0.96", {"x0_lambdas.betas": (0.8, 0.95)}),
)


def without(key: str, top: Recipe = YARDSTICK) -> Recipe:
    """``top`` without the technique of one rung."""
    rung = next(rung for rung in RUNGS if rung.key == key)
    return get_recipe(top, **{**rung.without, **rung.alone})


def ladder(top: Recipe = YARDSTICK) -> dict[str, Recipe]:
    """Key of a rung -> the recipe that has it and all below it; first the foot, last ``top``."""
    recipe, found = top, [top]
    for rung in reversed(RUNGS):
        recipe = get_recipe(recipe, **rung.without)
        found.append(recipe)
    return dict(zip([FOOT, *(rung.key for rung in RUNGS)], reversed(found), strict=True))


def later_changes(top: Recipe = YARDSTICK) -> dict[str, dict[str, Any]]:
    """What runs 4 to 6 and the source's head changed, each by itself: settings beside ``top``'s.

    Rates and lengths are in the proportion to run 1's that those runs had.
    """
    steps = round(top.muon.momentum_steps * 4 / 3)
    return {
        "softcap_20": {"logit_softcap": 20.0},
        "rope_base": {"rope_base": 100_000.0},
        "windows_third": {"short_window_divisor": 3},
        "windows_quarter": {"short_window_divisor": 4},
        "qk_scale": {"qk_scale": 1.15},
        "quiet_starts": {"wte_std": 0.8, "mlp_start_scale": 0.5},
        "value_gate": {
            "value_gate_channels": 12,
            "value_gate_range": 3.0,
            "value_gate_start": 0.02,
        },
        "head_rate": {
            "lm_head.lr": 2 * top.lm_head.lr,
            "lm_head.betas": (0.8, 0.96),
            "lm_head.weight_decay": 0.01,
        },
        "table_betas": {
            "wte.betas": (0.8, 0.995),
            "wte.weight_decay": 0.001,
            "value_embeddings.lr": top.value_embeddings.lr / 2,
            "value_embeddings.betas": (0.8, 0.995),
            "value_embeddings.weight_decay": 0.01,
        },
        "scalar_decay": {"resid_lambdas.weight_decay": 0.05},
        "muon_beta2": {"muon.beta2": 0.9, "muon.divisor": 1.01},
        "cosine_decay": {
            "muon.weight_decay": 1.4 * top.muon.weight_decay,
            "muon.weight_decay_schedule": "cosine",
        },
        "momentum_97": {"muon.momentum": (0.85, 0.97), "muon.momentum_steps": steps},
        "long_warmdown": {"warmup_steps": 4, "warmdown_ratio": 0.65, "final_lr": 0.05},
        "starts_by_depth": {"resid_lambda_start": (1.15, 1.05), "x0_lambda_start": (0.20, 0.05)},
        "smear": {"smear": True},
        "backout": {"backout": True},
        "momentum_end": {"muon.momentum": (0.85, 0.97), "muon.momentum_end": 0.90},
        "muon_eq": {"muon.equalize_rows": True},
        "muon_plus": {"muon.fix_norm": True},
        "swiglu": {"activation": "swiglu"},
    }


def find(name: str) -> Recipe:
    """A recipe, a rung of the yardstick's ladder, or the yardstick without-KEY or with-KEY."""
    rungs, later = ladder(), later_changes()
    if name in RECIPES or name in rungs:
        return RECIPES.get(name) or rungs[name]
    start, _, key = name.partition("-")
    if start == "without" and key in rungs and key != FOOT:
        return without(key)
    if start == "with" and key in later:
        return get_recipe(YARDSTICK, **later[key])
    raise UserError(
        f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}, a rung ({', '.join(rungs)}),"
        f" without-RUNG, or with-CHANGE ({', '.join(later)})"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print how two recipes differ, a setting a line."""
    parser = argparse.ArgumentParser(prog="python -m nanogpt2.rungs", description=main.__doc__)
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), required=True)
    names = parser.parse_args(argv).diff
    found = differences(*map(find, names))
    for name, values in found.items():
        print(f"{name}: {' -> '.join(map(str, values))}")
    if not found:
        print(f"{names[0]} and {names[1]} are the same")


if __name__ == "__main__":
    run_command(main)
