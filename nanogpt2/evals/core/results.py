"""What an evaluation found: per task, per example, and CORE itself. Chapter: core."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.errors import UserError
from nanogpt2.evals.core.statistics import (
    bootstrap_error,
    centered,
    macro_accuracy,
    standard_error,
)
from nanogpt2.evals.core.tasks import Kind, Sample
from nanogpt2.files import read_json

CORE_TASKS = 22


@dataclass(frozen=True)
class Score:
    """What the model made of one option's scored tokens."""

    loss: float
    """their mean loss in nats; NaN where there are none"""
    matches: bool
    """every one of them was the model's first choice (False where there are none)"""


NOTHING = Score(math.nan, False)


@dataclass(frozen=True)
class Outcome:
    """One example: its options' mean losses in nats, the option taken, whether that was right."""

    correct: bool
    choice: int | None
    losses: list[float]


def judge(kind: Kind, scores: Sequence[Score], gold: int | None) -> Outcome:
    """The outcome of an example, from its options' scores.

    Chosen is the option with the lowest mean loss, the earliest of equals. One without scored
    tokens has the loss NaN: it is taken when it comes first and passed over otherwise, as the known
    evaluator does (and as ``min`` does).
    """
    losses = [score.loss for score in scores]
    if kind is Kind.LANGUAGE_MODELING:
        return Outcome(scores[0].matches, None, losses)
    choice = losses.index(min(losses))
    return Outcome(choice == gold, choice, losses)


@dataclass(frozen=True)
class TaskResult:
    """One task; ``correct`` is in the order of the shuffled examples."""

    accuracy: float
    centered: float
    correct: list[bool]
    centered_corrected: float = 0.0
    """by the corrected table of baselines"""
    standard_error: float = 0.0
    """of ``accuracy``, binomial"""
    available: int = 0
    """examples the task has; fewer were asked where ``max_per_task`` says so"""
    outcomes: list[Outcome] = field(default_factory=list)
    baseline: float | None = None
    """the accuracy of guessing by which it is centered"""


@dataclass(frozen=True)
class CoreResult:
    """CORE by the first table of baselines, and what is needed to judge it."""

    core: float
    tasks: dict[str, TaskResult]
    core_corrected: float = 0.0
    """by the corrected table (GPT-2 1.5B: 0.2309 instead of 0.2565)"""
    standard_error: float = 0.0
    """of ``core``, by bootstrap over examples"""
    protocol: str = "nanochat"
    max_per_task: int | None = None

    @property
    def is_sample(self) -> bool:
        """Whether any task was asked less than all its examples."""
        return any(len(task.correct) < task.available for task in self.tasks.values())

    @property
    def is_complete(self) -> bool:
        """Whether all 22 tasks were asked: a mean over fewer is not CORE."""
        return len(self.tasks) == CORE_TASKS

    @property
    def label(self) -> str:
        """What the number may be called."""
        name = "CORE" if self.is_complete else f"mean of {len(self.tasks)} tasks (not CORE)"
        if self.is_sample:
            most = max(len(task.correct) for task in self.tasks.values())
            name += f", sample of at most {most:,} examples a task"
        return name

    def to_dict(self, published: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Any]:
        """Everything, for JSON; a NaN loss (nothing to score) is written as null.

        ``published`` (from ``bundle.published_scores``) goes along, for a report to compare with.
        """
        numbers = ("accuracy", "centered", "centered_corrected", "standard_error")
        tasks = {
            label: {
                **{name: getattr(task, name) for name in numbers},
                "baseline": task.baseline,
                "examples": len(task.correct),
                "available": task.available,
                "correct": [int(right) for right in task.correct],
                "choice": [outcome.choice for outcome in task.outcomes],
                "losses": [
                    [round(loss, 6) if loss == loss else None for loss in outcome.losses]
                    for outcome in task.outcomes
                ],
            }
            for label, task in self.tasks.items()
        }
        facts = ("label", "core", "core_corrected", "standard_error", "protocol", "max_per_task")
        return {
            **{name: getattr(self, name) for name in facts},
            "sample": self.is_sample,
            "tasks": tasks,
            "published": {size: dict(scores) for size, scores in (published or {}).items()},
        }


def is_result(path: Path) -> bool:
    """Whether the file at ``path`` is what the command writes."""
    try:
        known = read_json(path)
    except (UserError, OSError):
        return False
    return isinstance(known, dict) and {"label", "core", "protocol", "tasks"} <= known.keys()


def build_result(
    samples: list[Sample],
    outcomes: list[list[Outcome]],
    protocol: str,
    max_per_task: int | None,
) -> CoreResult:
    """Put outcomes together; ``outcomes[t][i]`` belongs to example i of ``samples[t]``."""
    tasks, groups = {}, []
    for sample, found in zip(samples, outcomes, strict=True):
        task, correct = sample.task, [outcome.correct for outcome in found]
        categories: dict[str, list[bool]] = defaultdict(list)
        apart = protocol == "dclm" and task.has_categories
        for item, right in zip(sample.pool, correct, strict=False):
            categories[item["category"] if apart else ""].append(right)
        groups.append([categories[name] for name in sorted(categories)])
        accuracy = macro_accuracy(groups[-1])
        tasks[task.label] = TaskResult(
            accuracy=accuracy,
            centered=centered(accuracy, task.baseline),
            correct=correct,
            centered_corrected=centered(accuracy, task.corrected_baseline),
            standard_error=standard_error(accuracy, len(correct)),
            available=len(task.items),
            outcomes=found,
            baseline=task.baseline,
        )
    return CoreResult(
        core=float(np.mean([task.centered for task in tasks.values()])),
        tasks=tasks,
        core_corrected=float(np.mean([task.centered_corrected for task in tasks.values()])),
        standard_error=bootstrap_error(groups, [sample.task.baseline for sample in samples]),
        protocol=protocol,
        max_per_task=max_per_task,
    )
