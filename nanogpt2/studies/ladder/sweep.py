"""The yardstick's rates: a search along one setting at a time, so that no baseline is untuned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import LAPTOP, YARDSTICK, Recipe, get_recipe
from nanogpt2.rungs import FOOT, Ladder

ADAMW_BETAS = ((0.6, 0.95), (0.7, 0.95), (0.8, 0.95), (0.9, 0.95), (0.9, 0.98))


@dataclass(frozen=True)
class Sweep:
    """One recipe and the settings that are searched, in this order; from where they stand."""

    name: str
    start: Recipe
    axes: Mapping[str, Sequence[Any]]
    """setting -> its values in order; it moves to a neighbour while that is better"""
    rounds: int = 1
    """times that all settings are gone through: what is best of one may hang on a later one"""
    least: float = 0.0
    """by how many bits per byte a neighbour must be better"""


@dataclass
class Found:
    """How far a search has come."""

    best: dict[str, Any] = field(default_factory=dict)
    """setting -> the best value, of the settings that are done"""
    missing: list[Trial] = field(default_factory=list)
    """what must be trained before it can go on; none: the search is over"""
    tried: dict[str, dict[Any, float]] = field(default_factory=dict)
    """setting -> value -> bits per byte, the other settings at their best so far"""


def value_of(recipe: Recipe, setting: str) -> Any:
    """A setting by its dotted name."""
    return reduce(getattr, setting.split("."), recipe)


A_THIRD_OF_A_SEED = 0.002
"""bits per byte: a smaller gain, by one seed, is chance, not worth another foot of the ladder"""
RATES = ("muon.lr", "muon.weight_decay", "lm_head.lr", "wte.lr", "value_embeddings.lr",
         "x0_lambdas.lr", "resid_lambdas.lr")  # fmt: skip
UNTUNED = get_recipe(YARDSTICK, **{name: value_of(LAPTOP, name) for name in RATES})
UNTUNED = get_recipe(UNTUNED, **{"muon.momentum_steps": 96})
"""where the search begins: the laptop's rates, whatever an earlier search has put in their place"""
STARTS: dict[str, dict[str, Any]] = {
    FOOT: {
        "matrices_adamw.lr": 0.00075,
        "lm_head.lr": 0.004,
        "warmup_steps": 128,
        "matrices_adamw.betas": (0.8, 0.95),
    },
    "adamw": {
        "matrices_adamw.lr": 0.003,
        "lm_head.lr": 0.008,
        "warmup_steps": 128,
        "matrices_adamw.betas": (0.8, 0.95),
    },
    "plain_decay": {},
}
"""where the others begin: AdamW's where an earlier search over narrower lists had ended"""


def _doubling(middle: float, down: int, up: int, factor: float = 2.0) -> tuple[float, ...]:
    return tuple(float(f"{middle * factor**i:.3g}") for i in range(-down, up + 1))


def sweeps() -> list[Sweep]:
    """Run 1's model; the foot of the ladder; run 1 with AdamW, and with plain decay."""
    start = Ladder(STARTS, UNTUNED)
    matrices = {
        "matrices_adamw.lr": _doubling(0.003, 6, 3),
        "lm_head.lr": _doubling(0.004, 3, 3),
        "warmup_steps": (0, 16, 32, 64, 128, 192, 256),
        "matrices_adamw.betas": ADAMW_BETAS,
        "matrices_adamw.weight_decay": (0.0, *_doubling(0.1, 2, 2, 4.0)),
    }
    return [
        Sweep(
            "run1",
            start.top,
            {
                "muon.lr": _doubling(0.02, 2, 3),
                "lm_head.lr": _doubling(0.004, 2, 4),
                "wte.lr": _doubling(0.3, 3, 2),
                "muon.weight_decay": _doubling(0.2, 3, 1, 4.0),
                "value_embeddings.lr": _doubling(0.3, 3, 2),
                "x0_lambdas.lr": _doubling(0.5, 2, 1, 4.0),
                "resid_lambdas.lr": _doubling(0.005, 1, 2, 4.0),
                "muon.momentum_steps": (24, 48, 96, 192, 384),
            },
        ),
        Sweep(FOOT, start.climbed[FOOT], matrices, 2, A_THIRD_OF_A_SEED),
        Sweep("adamw", start.without("muon"), matrices, 2, A_THIRD_OF_A_SEED),
        Sweep(
            "plain_decay",
            start.without("cautious"),
            {"muon.weight_decay": (0.0, *_doubling(0.2, 4, 0, 4.0))},
        ),
    ]


@dataclass(frozen=True)
class Searched:
    """All sweeps as far as they have come."""

    tuned: dict[str, dict[str, Any]]
    """name of a sweep -> setting -> the best value, where it stands for settings not yet done"""
    missing: list[Trial]
    tried: dict[str, dict[str, list[Any]]]
    """name of a sweep -> setting -> [value, bits per byte, if it did not diverge] in order"""


def searched(entries: Sequence[Mapping[str, Any]]) -> Searched:
    """How far what is in the trials' files leads."""
    # of a run that two machines made, that of the search counts: rounding finds no better rate
    share = Counter(entry["machine"] for entry in entries if entry["name"].startswith("sweep-"))
    ordered = sorted(entries, key=lambda entry: share[entry["machine"]])
    ends = {entry["identity"]: entry["bpb"] or math.inf for entry in ordered}
    found = {sweep.name: search(sweep, ends) for sweep in sweeps()}
    missing = [trial for each in found.values() for trial in each.missing]
    return Searched(
        tuned={name: {**STARTS.get(name, {}), **each.best} for name, each in found.items()},
        missing=missing,
        tried={
            name: {s: [[v, _finite(by[v])] for v in sorted(by)] for s, by in each.tried.items()}
            for name, each in found.items()
        },
    )


def _finite(bpb: float) -> float | None:
    return bpb if math.isfinite(bpb) else None


def search(sweep: Sweep, ends: Mapping[str, float]) -> Found:
    """Go as far as the known ``ends`` lead: a trial's identity -> its bits per byte."""
    recipe, found = sweep.start, Found()
    for setting, values in [*sweep.axes.items()] * sweep.rounds:
        tried: dict[Any, float] = {}  # at the others' best of now
        found.tried[setting] = tried
        here = values.index(value_of(recipe, setting))
        while True:
            near = [i for i in (here - 1, here, here + 1) if 0 <= i < len(values)]
            trials = {i: _trial(sweep, recipe, setting, values[i]) for i in near}
            found.missing = [t for t in trials.values() if t.identity not in ends]
            if found.missing:
                return found
            scores = {i: ends[trial.identity] for i, trial in trials.items()}
            tried |= {values[i]: scores[i] for i in near}
            best = min(near, key=scores.__getitem__)
            if not scores[here] - scores[best] > sweep.least:
                break
            here = best
        recipe = get_recipe(recipe, **{setting: values[here]})
        found.best[setting] = values[here]
    return found


def _trial(sweep: Sweep, recipe: Recipe, setting: str, value: Any) -> Trial:
    text = "_".join(map(str, value)) if isinstance(value, tuple) else str(value)
    name = f"sweep-{sweep.name}-{setting.lower()}-{text}"
    return Trial(name, get_recipe(recipe, **{setting: value}), seed=0)
