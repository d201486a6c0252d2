"""Which runs the scaling record is made of: sizes by budgets, batches, rates by widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nanogpt2.depth import dial
from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import YARDSTICK, Recipe, get_recipe
from nanogpt2.rungs import Ladder

DEPTHS = (1, 2, 3, 4, 5, 6, 8)
BUDGETS = tuple(2e12 * 2**i for i in range(5))
"""FLOPs of a run, forward and backward; the yardstick's own are near the third"""
FEWEST_STEPS = 64
"""a shorter run is mostly its schedules"""
CHARACTERS = 60_000_000
"""of the training text: 20 million tokens, of which rows crop a third"""
MOST_TOKENS = 10_000_000
"""a longer run would read its text again, and text read twice is worth less than new text"""
BATCHES = (1024, 2048, 4096, 8192, 16384)
"""tokens a step"""
BATCH_DEPTHS = (1, 3)
LENGTHS = (0.5, 1.0, 2.0)
"""parts of the yardstick's tokens; what reaches a wanted loss is read between them"""
WIDTHS = (32, 64, 128)
WIDTH_DEPTH = 4
RATES = {
    "muon.lr": tuple(0.02 * 2**i for i in range(-2, 3)),
    "matrices_adamw.lr": tuple(0.003 * 2**i for i in range(-3, 3)),
}
"""setting -> values; a width's best is the lowest point of a parabola through them. (AdamW's sixth
was added when two of three widths had their lowest at the fifth.)"""


@dataclass(frozen=True)
class Plan:
    """The runs over some seeds; heads of 32, so that the width follows the depth exactly."""

    seeds: Sequence[int] = (0,)
    base: Recipe = get_recipe(YARDSTICK, head_dim=32)

    @cached_property
    def grid(self) -> dict[tuple[int, float], Recipe]:
        """(depth, FLOPs) -> recipe: as many steps as the budget pays for, neither few nor many."""
        found = {}
        for budget in reversed(BUDGETS):
            for depth in DEPTHS:
                at = get_recipe(self.base, depth=depth)
                made = dial(recipe=at)
                steps = round(budget / (made.flops_per_token * made.batch_tokens))
                if FEWEST_STEPS <= steps <= MOST_TOKENS // made.batch_tokens:
                    found[depth, budget] = self._long(at, steps)
        return found

    @cached_property
    def batches(self) -> dict[tuple[int, int, float], Recipe]:
        """(depth, tokens a step, part of the yardstick's tokens) -> recipe.

        Rates follow the root of the batch, as in the run (``Dial.lr_scale``).
        """
        tokens = dial(recipe=self.base).tokens
        return {
            (depth, batch, length): self._long(
                get_recipe(self.base, depth=depth, batch_tokens=batch),
                round(length * tokens / batch),
            )
            for length in reversed(LENGTHS)
            for depth in reversed(BATCH_DEPTHS)
            for batch in BATCHES
        }

    @cached_property
    def widths(self) -> dict[tuple[str, int, float], Recipe]:
        """(setting, width, its value) -> recipe: half the yardstick's steps.

        AdamW's is run 1 with AdamW for the matrices.
        """
        adamw = Ladder(base=self.base).without("muon")
        return {
            (setting, width, value): self._long(
                get_recipe(
                    self.base if setting == "muon.lr" else adamw,
                    depth=WIDTH_DEPTH,
                    aspect=width // WIDTH_DEPTH,
                    **{setting: value},
                ),
                dial(recipe=self.base).iterations // 2,
            )
            for width in reversed(WIDTHS)
            for setting, values in RATES.items()
            for value in values
        }

    @cached_property
    def parts(self) -> dict[str, Mapping[Any, Recipe]]:
        """Name of a part -> its recipes, the largest first: runs side by side then end together."""
        return {"grid": self.grid, "batch": self.batches, "width": self.widths}

    def trial(self, part: str, where: Sequence[Any], seed: int) -> Trial:
        """One run of a part."""
        named = "-".join(f"{x:g}" if isinstance(x, float) else str(x) for x in where)
        return Trial(f"{part}-{named}", self.parts[part][tuple(where)], seed)

    @cached_property
    def trials(self) -> list[Trial]:
        """One seed of all parts before the next."""
        return [
            self.trial(part, where, seed)
            for seed in self.seeds
            for part, recipes in self.parts.items()
            for where in recipes
        ]

    def _long(self, recipe: Recipe, steps: int) -> Recipe:
        """So many steps; the momentum's warm-up never takes more than a sixth of them."""
        momentum = min(self.base.muon.momentum_steps, max(1, steps // 6))
        return get_recipe(recipe, iterations=steps, **{"muon.momentum_steps": momentum})
