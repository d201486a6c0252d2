"""Which runs the ladder is made of, the most important first."""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import YARDSTICK, get_recipe
from nanogpt2.rungs import FOOT, RUNGS, TOP, ladder, later_changes, without

NOISE_SEEDS = range(10)
"""of the top alone: how far apart two runs of the same recipe end"""
BUDGETS = (0.125, 0.25, 0.5, 2.0)
"""parts of the top's steps: what it reaches with less and with more compute"""


def trials_of(seeds: Sequence[int]) -> list[Trial]:
    """All of the ladder, seed by seed: a record that ends early has as many of everything."""
    found = [trial for seed in seeds for trial in _of_seed(seed)]
    further = [Trial(TOP, YARDSTICK, seed) for seed in NOISE_SEEDS if seed not in seeds]
    return found + further


def _of_seed(seed: int) -> list[Trial]:
    top = Trial(TOP, YARDSTICK, seed)
    missing_one = [Trial(f"without-{rung.key}", without(rung.key), seed, TOP) for rung in RUNGS]
    budgets = [
        Trial(f"budget-{part:g}", get_recipe(YARDSTICK, iterations=round(part * steps)), seed)
        for part in BUDGETS
        if (steps := YARDSTICK.iterations)
    ]
    keys = [FOOT, *(rung.key for rung in RUNGS)]
    up = list(ladder().items())[:-1]
    below = dict(zip(keys[1:], keys, strict=False))
    climbed = [
        Trial(f"up-{key}", recipe, seed, f"up-{below[key]}" if key in below else "")
        for key, recipe in up
    ]
    later = [
        Trial(f"with-{key}", get_recipe(YARDSTICK, **settings), seed, TOP)
        for key, settings in later_changes().items()
    ]
    return [top, *missing_one, *budgets, *climbed, *later]
