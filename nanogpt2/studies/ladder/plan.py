"""Which runs the ladder is made of, the most important first, and which are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.rungs import TOP, Ladder

NOISE_SEEDS = range(10)
"""of the top alone: how far apart two runs of the same recipe end"""
FIRST = 3
"""seeds with which an interval begins to mean something"""
DEEPER = 6
"""layers of a second, larger yardstick, for the techniques that chapters open with"""
AT_BOTH = ("rope", "rmsnorm", "qk_norm", "muon", "polar_express", "normuon", "cautious",
           "value_embeddings", "residual_scalars", "windows")  # fmt: skip
BUDGETS = (0.125, 0.25, 0.5, 2.0)
"""parts of the top's steps: what it reaches with less and with more compute"""


@dataclass(frozen=True)
class Pair:
    """One technique in one surrounding."""

    key: str
    title: str
    with_it: Recipe
    without_it: Recipe


@dataclass(frozen=True)
class Plan:
    """The runs of one ladder over some seeds."""

    ladder: Ladder
    seeds: Sequence[int]

    @cached_property
    def pairs(self) -> dict[str, list[Pair]]:
        """Name of a table -> its comparisons."""
        top, climbed, deeper = self.ladder.top, self.ladder.climbed, self._deeper_ladder
        titles = {rung.key: rung.title for rung in self.ladder.rungs}
        return {
            "without": [Pair(k, titles[k], top, self.ladder.without(k)) for k in titles],
            "up": [
                Pair(key, titles[key], climbed[key], climbed[below])
                for below, key in zip(climbed, titles, strict=False)
            ],
            "later": [
                Pair(key, recipe.summary, recipe, top) for key, recipe in self.ladder.later.items()
            ],
            "deeper": [Pair(k, titles[k], deeper.top, deeper.without(k)) for k in AT_BOTH],
        }

    @cached_property
    def trials(self) -> list[Trial]:
        """Some seeds of each part before the next, so that each can soon be judged."""
        first, rest = self.seeds[:FIRST], self.seeds[FIRST:]
        parts = (self._without_one, self.reference, self._up, self._later)
        found = [trial for part in parts for seed in first for trial in part(seed)]
        found += [trial for seed in rest for part in parts for trial in part(seed)]
        found += [trial for seed in first for trial in self.deeper(seed)]
        found += [self.top(seed) for seed in NOISE_SEEDS]
        return list({(trial.name, trial.seed): trial for trial in found}.values())

    @cached_property
    def timed(self) -> list[Trial]:
        """One trial of each recipe at the small size: what is timed, step by step."""
        parts = (self._without_one(0), self._up(0), self._later(0))
        return [trial for part in parts for trial in part]

    def top(self, seed: int) -> Trial:
        """What techniques are taken from and added to."""
        return Trial(TOP, self.ladder.top, seed)

    def reference(self, seed: int) -> list[Trial]:
        """The top at several lengths, its own among them."""
        top = self.ladder.top
        recipes = {p: get_recipe(top, iterations=round(p * (top.iterations or 0))) for p in BUDGETS}
        return [self.top(seed), *(Trial(f"top-x{p:g}", r, seed) for p, r in recipes.items())]

    @cached_property
    def _deeper_ladder(self) -> Ladder:
        base = get_recipe(self.ladder.base, depth=DEEPER)
        return Ladder(self.ladder.tuned, base)

    def deeper(self, seed: int) -> list[Trial]:
        """The larger top, and one technique less: as many tokens, and the rates of the small."""
        top = f"{TOP}-d{DEEPER}"
        less = [
            Trial(f"without-{pair.key}-d{DEEPER}", pair.without_it, seed, top)
            for pair in self.pairs["deeper"]
        ]
        return [Trial(top, self._deeper_ladder.top, seed), *less]

    def _without_one(self, seed: int) -> list[Trial]:
        pairs = self.pairs["without"]
        one = [Trial(f"without-{pair.key}", pair.without_it, seed, TOP) for pair in pairs]
        return [self.top(seed), *one]

    def _up(self, seed: int) -> list[Trial]:
        found, below = list[Trial](), ""
        for key, recipe in list(self.ladder.climbed.items())[:-1]:  # the last rung is the top
            found.append(Trial(f"up-{key}", recipe, seed, below))
            below = f"up-{key}"
        return found

    def _later(self, seed: int) -> list[Trial]:
        pairs = self.pairs["later"]
        return [Trial(f"with-{pair.key}", pair.with_it, seed, TOP) for pair in pairs]
