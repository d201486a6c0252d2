"""Which runs the ladder is made of, the most important first."""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import YARDSTICK, get_recipe
from nanogpt2.rungs import RUNGS, TOP, ladder, later_changes, without

NOISE_SEEDS = range(10)
"""of the top alone: how far apart two runs of the same recipe end"""
FIRST = 3
"""seeds with which an interval begins to mean something"""
BUDGETS = (0.125, 0.25, 0.5, 2.0)
"""parts of the top's steps: what it reaches with less and with more compute"""


def trials_of(seeds: Sequence[int]) -> list[Trial]:
    """All of the ladder: some seeds of each part before the next, so that each can be judged."""
    first, rest = seeds[:FIRST], seeds[FIRST:]
    parts = (_without_one, _budgets, _up, _later)
    found = [trial for part in parts for seed in first for trial in part(seed)]
    found += [trial for seed in rest for part in parts for trial in part(seed)]
    return found + [Trial(TOP, YARDSTICK, seed) for seed in NOISE_SEEDS if seed not in seeds]


def _without_one(seed: int) -> list[Trial]:
    top = Trial(TOP, YARDSTICK, seed)
    return [top, *(Trial(f"without-{r.key}", without(r.key), seed, TOP) for r in RUNGS)]


def _budgets(seed: int) -> list[Trial]:
    steps = YARDSTICK.iterations or 0
    recipes = {part: get_recipe(YARDSTICK, iterations=round(part * steps)) for part in BUDGETS}
    return [Trial(f"budget-{part:g}", recipe, seed) for part, recipe in recipes.items()]


def _up(seed: int) -> list[Trial]:
    climbed = ladder()
    keys = list(climbed)[:-1]  # the last rung is the top
    below = dict(zip(keys[1:], keys, strict=False))
    against = {key: f"up-{below[key]}" if key in below else "" for key in keys}
    return [Trial(f"up-{key}", climbed[key], seed, against[key]) for key in keys]


def _later(seed: int) -> list[Trial]:
    changes = later_changes().items()
    return [
        Trial(f"with-{key}", get_recipe(YARDSTICK, **settings), seed, TOP)
        for key, settings in changes
    ]
