"""Pictures of the chapter on CORE."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from nanogpt2.evals.core.statistics import centered
from nanogpt2.reported import GPT2_CORE, SEEDS_CORE_SD
from nanogpt2.reporting.figures import COLOURS, plotting
from nanogpt2.studies.core.measures import certainty


def centering_frame(guessing: str, accuracy: float) -> tuple[Figure, str]:
    """An accuracy between chance and perfect, as a bar; a frame for ``explore``."""
    chance = {"1 of 4 options": 0.25, "1 of 2 options": 0.5, "exact text": 0.0}[guessing]
    value = centered(accuracy, chance)
    with plotting(height=1.7) as (fig, axes):
        axes.barh([0], [1.0], color="none", edgecolor=COLOURS[5], height=0.5)
        axes.barh([0], [accuracy], color=COLOURS[0], height=0.5)
        axes.axvline(chance, color=COLOURS[1], linestyle="-")
        axes.set(xlim=(0, 1), yticks=[], xlabel="accuracy", ylim=(-0.5, 0.5))
        axes.grid(False)
        axes.set_title(f"centered: {value:+.2f}")
    alt = f"Accuracy {accuracy:g} where guessing gives {chance:g}: centered accuracy {value:+.2f}."
    return fig, alt


def bootstrap_figure(values: np.ndarray, core: float) -> tuple[Figure, str]:
    """A histogram of ``bootstrap``."""
    with plotting(height=2.5) as (fig, axes):
        axes.hist(values, bins=40, color=COLOURS[0])
        axes.axvline(core, color=COLOURS[1], linestyle="-")
        axes.set(xlabel="CORE, with the examples drawn again", yticks=[])
    low, high = np.quantile(values, [0.025, 0.975])
    alt = (
        f"A bell-shaped histogram around {core:.3f}; 95 of 100 redrawn samples lie between "
        f"{low:.3f} and {high:.3f}."
    )
    return fig, alt


def seeds_frame(margin: float, seeds: int, spread: float = SEEDS_CORE_SD) -> tuple[Figure, str]:
    """What the mean of so many runs may come out as, beside GPT-2's score; for ``explore``."""
    error = spread / math.sqrt(seeds)
    x = np.linspace(GPT2_CORE - 0.015, GPT2_CORE + 0.03, 300)
    y = np.exp(-0.5 * ((x - GPT2_CORE - margin) / error) ** 2)
    above = certainty(margin, seeds, spread)
    with plotting(height=2.3) as (fig, axes):
        axes.plot(x, y)
        axes.fill_between(x, 0, y, where=x > GPT2_CORE, color=COLOURS[0], alpha=0.25)
        axes.axvline(GPT2_CORE, color=COLOURS[1], linestyle="-")
        axes.set(xlabel="CORE", yticks=[], ylim=(0, 1.15))
        axes.set_title(f"above GPT-2 with probability {above:.1%}")
    alt = (
        f"A model truly {margin:g} above GPT-2, mean of {seeds} runs: it comes out above GPT-2's "
        f"{GPT2_CORE} with probability {above:.1%}."
    )
    return fig, alt
