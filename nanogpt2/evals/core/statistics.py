"""Chance taken out, and how far the result would move with other examples of the same kind.

CORE's mean over tasks: DCLM (arXiv 2406.11794). Bootstrap: Efron (1979). Chapter: core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def centered(accuracy: float, baseline: float) -> float:
    """0 for guessing, 1 for all right: (accuracy - b) / (1 - b)."""
    return (accuracy - baseline) / (1.0 - baseline)


def baseline_of(accuracy: float, centered: float) -> float:
    """The b of ``centered``; an accuracy of 1 tells nothing, and any b centers it.

    So a result needs no bundle to be shown beside others.
    """
    return 0.0 if centered == 1 else (accuracy - centered) / (1 - centered)


def standard_error(accuracy: float, count: int) -> float:
    """Binomial standard error of an accuracy over ``count`` examples."""
    return math.sqrt(accuracy * (1.0 - accuracy) / count)


def macro_accuracy(categories: Sequence[Sequence[bool]]) -> float:
    """Plain mean over categories of the accuracy within each."""
    return float(np.mean([np.mean(outcomes) for outcomes in categories]))


def core_of(accuracies: Mapping[str, float], baselines: Mapping[str, float]) -> float:
    """Plain mean of the centered accuracies."""
    values = [centered(accuracies[label], baselines[label]) for label in accuracies]
    return float(np.mean(values))


def paired_error(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]
) -> float:
    """Standard error of CORE's difference between two models that were asked the same items.

    Both map a task's label to its ``accuracy``, ``centered`` and ``correct`` by item. What is hard
    for both cancels: only items that one got right and the other wrong count (McNemar, 1947).
    """
    variance = 0.0
    for label, task in first.items():
        apart = np.subtract(task["correct"], second[label]["correct"], dtype=float)
        both = (task, second[label])
        chance = max(baseline_of(known["accuracy"], known["centered"]) for known in both)
        if len(apart) > 1:
            variance += float(apart.var(ddof=1)) / len(apart) / (1 - chance) ** 2
    return math.sqrt(variance) / len(first)


def bootstrap_error(
    groups: Sequence[Sequence[Sequence[bool]]],
    baselines: Sequence[float],
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Standard error of CORE when the examples of every task are drawn again with replacement.

    Args:
        groups: for every task its outcomes by category (one category where there are none).
        baselines: for every task the accuracy of guessing.
        draws: resamples.

    A resampled accuracy of n outcomes with k right is Binomial(n, k/n) / n, so drawing that count
    is drawing the examples.
    """
    generator = np.random.default_rng(seed)
    total = np.zeros(draws)
    for task, baseline in zip(groups, baselines, strict=True):
        means = [
            generator.binomial(len(outcomes), float(np.mean(outcomes)), size=draws) / len(outcomes)
            for outcomes in task
        ]
        total += (np.mean(means, axis=0) - baseline) / (1.0 - baseline)
    return float(np.std(total / len(groups), ddof=1))
