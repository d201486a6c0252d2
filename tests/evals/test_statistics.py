"""Centering, errors, and the published CORE of GPT-2's four sizes from their accuracies."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from nanogpt2.evals.core.bundle import CORRECTED_BASELINES, published_scores
from nanogpt2.evals.core.statistics import (
    bootstrap_error,
    centered,
    core_of,
    macro_accuracy,
    standard_error,
)
from nanogpt2.evals.core.tasks import Task

PUBLISHED = {"124M": 0.113891, "355M": 0.184903, "774M": 0.214641, "1.5B": 0.256525}


@pytest.fixture(scope="module")
def baselines(core_tasks: list[Task]) -> dict[str, float]:
    assert len(core_tasks) == 22 and sum(len(task.items) for task in core_tasks) == 91_037
    return {task.label: task.baseline for task in core_tasks}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_core_from_published_accuracies(
    shared_dir: Path, baselines: dict[str, float], size: str
) -> None:
    accuracies = published_scores(shared_dir / "core_eval_bundle")[size]
    assert set(accuracies) == set(baselines)
    assert core_of(accuracies, baselines) == pytest.approx(PUBLISHED[size], abs=1e-6)


def test_corrected_baselines_lower_gpt2(shared_dir: Path, baselines: dict[str, float]) -> None:
    accuracies = published_scores(shared_dir / "core_eval_bundle")["1.5B"]
    assert core_of(accuracies, {**baselines, **CORRECTED_BASELINES}) == pytest.approx(
        0.2309, abs=5e-5
    )


def test_corrected_baselines_are_those_of_the_second_table(
    shared_dir: Path, baselines: dict[str, float]
) -> None:
    path = shared_dir / "core_eval_bundle" / "eval_meta_data_v2.csv"
    with open(path, newline="") as file:
        second = {r["Eval Task"]: float(r["Random baseline"]) / 100 for r in csv.DictReader(file)}
    for label, first in baselines.items():
        assert CORRECTED_BASELINES.get(label, first) == pytest.approx(second[label])


def test_chance_by_the_first_table_scores_on_language_identification(
    baselines: dict[str, float],
) -> None:
    assert centered(0.25, baselines["bigbench_language_identification"]) == pytest.approx(
        0.175, abs=5e-4
    )


def binomial_error(accuracies: dict[str, float], counts: dict[str, int], base: dict) -> float:
    """Of CORE, as independent binomials: sqrt(sum of (s.e. / (1 - b))^2) / tasks."""
    parts = [standard_error(accuracies[k], counts[k]) / (1 - base[k]) for k in accuracies]
    return math.sqrt(sum(part**2 for part in parts)) / len(parts)


def test_error_of_gpt2s_core_is_about_seven_thousandths(
    shared_dir: Path, core_tasks: list[Task], baselines: dict[str, float]
) -> None:
    accuracies = published_scores(shared_dir / "core_eval_bundle")["1.5B"]
    counts = {task.label: min(1000, len(task.items)) for task in core_tasks}
    expected = binomial_error(accuracies, counts, baselines)
    assert expected == pytest.approx(0.007, abs=0.0005)
    groups = [
        [[True] * round(accuracies[k] * n) + [False] * (n - round(accuracies[k] * n))]
        for k, n in counts.items()
    ]
    found = bootstrap_error(groups, [baselines[k] for k in counts], draws=4000)
    assert found == pytest.approx(expected, rel=0.05)


def test_bootstrap_is_that_of_drawn_examples() -> None:
    draws = np.random.default_rng(1)
    outcomes = [[draws.random(40) < 0.3], [draws.random(15) < 0.8, draws.random(60) < 0.5]]
    baselines = [0.25, 0.0]
    naive = []
    for _ in range(4000):
        parts = []
        for task, baseline in zip(outcomes, baselines, strict=True):
            means = [draws.choice(group, len(group)).mean() for group in task]
            parts.append(centered(float(np.mean(means)), baseline))
        naive.append(np.mean(parts))
    groups = [[group.tolist() for group in task] for task in outcomes]
    assert bootstrap_error(groups, baselines, draws=4000) == pytest.approx(
        float(np.std(naive)), rel=0.08
    )


def test_macro_accuracy_weighs_categories_alike() -> None:
    assert macro_accuracy([[True, True, True], [False]]) == 0.5


def test_centered_ends() -> None:
    assert centered(0.25, 0.25) == 0.0 and centered(1.0, 0.25) == 1.0 and centered(0.0, 0.5) == -1.0


def test_standard_error_of_a_coin() -> None:
    assert standard_error(0.5, 100) == 0.05
