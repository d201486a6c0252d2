"""The ladder: from a plain GPT-2 with AdamW to run 1, a technique a rung, as data.

A rung says what stands in a recipe's fields *without* it. All rungs off are the foot of the ladder,
one off is run 1 without that technique; ``later`` is what came after run 1.
``python -m nanogpt2.recipes --diff A B`` prints how two of them, or any two recipes, differ.

Chapter: plain_gpt.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nanogpt2.errors import UserError
from nanogpt2.recipes import RECIPES, YARDSTICK, Recipe, differences, get_recipe

FOOT = "gpt2"
TOP = "top"
Settings = Mapping[str, Any]

TUNED: Mapping[str, Settings] = {
    "gpt2": {
        "lm_head.lr": 0.004,
        "warmup_steps": 128,
        "matrices_adamw.lr": 0.00075,
        "matrices_adamw.betas": (0.8, 0.95),
        "matrices_adamw.weight_decay": 0.1,
    },
    "adamw": {
        "warmup_steps": 128,
        "matrices_adamw.lr": 0.003,
        "lm_head.lr": 0.008,
        "matrices_adamw.betas": (0.8, 0.95),
        "matrices_adamw.weight_decay": 0.1,
    },
    "plain_decay": {"muon.weight_decay": 0.000781},
}
"""what the recorded sweep found for the foot of the ladder, and for the top with AdamW for the
matrices or with plain decay: an untuned baseline is none; for the top it is in the yardstick"""


@dataclass(frozen=True)
class Rung:
    """One technique."""

    key: str
    title: str
    without: Settings
    """settings of a recipe that lacks it"""
    alone: Settings = field(default_factory=dict)
    """settings that are right only where it alone is missing from the top"""


@dataclass(frozen=True)
class Ladder:
    """From a plain GPT-2 to run 1, both as small as the yardstick, with the rates that are said."""

    tuned: Mapping[str, Settings] = field(default_factory=lambda: TUNED)
    base: Recipe = YARDSTICK

    @cached_property
    def top(self) -> Recipe:
        """Run 1, small."""
        return get_recipe(self.base, **self.tuned.get("run1", {}))

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """From the foot to the top."""
        foot, plain_decay = self.tuned["gpt2"], self.tuned["plain_decay"]
        # a table that no norm follows starts small, and is learned as slowly as a head
        small = {"wte_std": 0.02, "wte.lr": foot["lm_head.lr"]}
        by_newton = {"muon.polynomial": "newton_schulz", "muon.divisor": 1.0}
        constant = {"muon.cautious": False, "muon.weight_decay_schedule": "constant"}
        by_adamw = {"matrices": "adamw"}
        return (
            Rung("rope", "rotary positions", {"positions": "learned"}),
            Rung(
                "rmsnorm", "RMSNorm without parameters", {"norm": "layer", "norm_learnable": True}
            ),
            Rung("no_bias", "no biases", {"bias": True}),
            Rung("relu2", "squared ReLU", {"activation": "gelu"}),
            # a table that is the head too starts as quiet as GPT-2's
            Rung("untied", "untied head", {"tied_head": True}, alone={"wte_std": 0.02}),
            Rung("embedding_norm", "norm after the embedding", {"embedding_norm": False, **small}),
            Rung("qk_norm", "QK-norm", {"qk_norm": False}),
            Rung("softcap", "softcap", {"logit_softcap": 0.0}),
            Rung("best_fit", "rows that begin with a document", {"packing": "stream"}),
            Rung("muon", "Muon for the matrices", {**by_adamw, **foot}, alone=self.tuned["adamw"]),
            Rung("polar_express", "Polar Express for Newton-Schulz", by_newton),
            Rung("normuon", "NorMuon's variance reduction", {"muon.beta2": 1.0}),
            Rung("cautious", "cautious decay that falls to zero", {**constant, **plain_decay}),
            Rung("value_embeddings", "value embeddings", {"value_embeddings": False}),
            Rung("residual_scalars", "residual scalars and x0", {"residual_scalars": False}),
            Rung("windows", "windows SSSL", {"window_pattern": "L"}),
            Rung("warmdown", "warm-down over one half", {"warmdown_ratio": 1.0}),
            Rung("x0_beta", "x0's first beta of 0.96", {"x0_lambdas.betas": (0.8, 0.95)}),
        )

    def without(self, key: str) -> Recipe:
        """The top without one technique."""
        rung = next(rung for rung in self.rungs if rung.key == key)
        return get_recipe(self.top, **{**rung.without, **rung.alone})

    @cached_property
    def climbed(self) -> dict[str, Recipe]:
        """Key of a rung -> the recipe that has it and all below it; from the foot to the top."""
        found = [self.top]
        for rung in reversed(self.rungs):
            found.append(get_recipe(found[-1], **rung.without))
        return dict(zip([FOOT, *(rung.key for rung in self.rungs)], reversed(found), strict=True))

    @cached_property
    def later(self) -> dict[str, Recipe]:
        """What runs 4 to 6 and the source's head changed, each by itself on the top, summed up.

        Rates and lengths are in the proportion to run 1's that those runs had.
        """
        top = self.top
        memory = {"betas": (0.8, 0.995), "weight_decay": 0.01}
        long_momentum = {"muon.momentum": (0.85, 0.97)}
        changes: dict[str, tuple[str, Settings]] = {
            "softcap_20": ("softcap of 20", {"logit_softcap": 20.0}),
            "rope_base": ("rotary base of 100,000", {"rope_base": 100_000.0}),
            "windows_third": ("short windows of T/3", {"short_window_divisor": 3}),
            "windows_quarter": ("short windows of T/4", {"short_window_divisor": 4}),
            "qk_scale": ("queries and keys times 1.15", {"qk_scale": 1.15}),
            "quiet_starts": (
                "quieter starts: table and MLP",
                {"wte_std": 0.8, "mlp_start_scale": 0.5},
            ),
            "value_gate": (
                "value gates: 12 channels, to 3",
                {"value_gate_channels": 12, "value_gate_range": 3.0, "value_gate_start": 0.02},
            ),
            "head_rate": (
                "head: rate doubled, decay",
                {
                    "lm_head.lr": 2 * top.lm_head.lr,
                    "lm_head.betas": (0.8, 0.96),
                    "lm_head.weight_decay": 0.01,
                },
            ),
            "table_betas": (
                "tables: second beta of 0.995",
                {
                    "wte.betas": memory["betas"],
                    "wte.weight_decay": 0.001,
                    "value_embeddings.lr": top.value_embeddings.lr / 2,
                    **{f"value_embeddings.{name}": value for name, value in memory.items()},
                },
            ),
            "scalar_decay": ("decay of residual scalars", {"resid_lambdas.weight_decay": 0.05}),
            "muon_beta2": ("NorMuon's beta of 0.9", {"muon.beta2": 0.9, "muon.divisor": 1.01}),
            "cosine_decay": (
                "more decay, along a cosine",
                {
                    "muon.weight_decay": 1.4 * top.muon.weight_decay,
                    "muon.weight_decay_schedule": "cosine",
                },
            ),
            "momentum_97": (
                "momentum to 0.97",
                {**long_momentum, "muon.momentum_steps": round(top.muon.momentum_steps * 4 / 3)},
            ),
            "long_warmdown": (
                "warm-up, longer warm-down",
                {"warmup_steps": 4, "warmdown_ratio": 0.65, "final_lr": 0.05},
            ),
            "starts_by_depth": (
                "scalars that start by depth",
                {"resid_lambda_start": (1.15, 1.05), "x0_lambda_start": (0.20, 0.05)},
            ),
            "smear": ("smear", {"smear": True}),
            "backout": ("backout", {"backout": True}),
            "momentum_end": (
                "momentum to 0.97, then to 0.90",
                {**long_momentum, "muon.momentum_end": 0.90},
            ),
            "muon_eq": ("MuonEq", {"muon.equalize_rows": True}),
            "muon_plus": ("Muon+", {"muon.fix_norm": True}),
            "swiglu": ("SwiGLU", {"activation": "swiglu"}),
        }
        return {
            key: replace(get_recipe(top, **settings), summary=title)
            for key, (title, settings) in changes.items()
        }

    def find(self, name: str) -> Recipe:
        """A recipe, a rung, without-RUNG or with-CHANGE; UserError names them all."""
        start, _, key = name.partition("-")
        named = {**RECIPES, "yardstick": YARDSTICK, **self.climbed}
        if name in named:
            return named[name]
        if start == "without" and key in self.climbed and key != FOOT:
            return self.without(key)
        if start == "with" and key in self.later:
            return self.later[key]
        raise UserError(
            f"unknown recipe {name!r}; choose one of {', '.join(named)}, without-RUNG, or "
            f"with-CHANGE ({', '.join(self.later)})"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Print how two recipes differ, a setting a line."""
    parser = argparse.ArgumentParser(prog="python -m nanogpt2.recipes", description=main.__doc__)
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), required=True)
    names = parser.parse_args(argv).diff
    found = differences(*map(Ladder().find, names))
    for name, values in found.items():
        print(f"{name}: {' -> '.join(map(str, values))}")
    if not found:
        print(f"{names[0]} and {names[1]} are the same")
