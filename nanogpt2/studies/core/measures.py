"""Measurements of the chapter on CORE: chance, errors, seeds, overlaps, one score by hand."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

import nanogpt2
from nanogpt2.data.bundle import find_bundle, kept_bundle
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.core.results import CoreResult
from nanogpt2.evals.core.statistics import centered, core_of, standard_error
from nanogpt2.evals.core.tasks import Kind, Task
from nanogpt2.reported import GPT2_CORE, GPT2_ITEMS_A_TASK, LEADERBOARD

MOST = 300
"""examples of a task that are looked for in the corpus"""


def core_bundle() -> Path:
    """The tasks: NANOGPT2_CORE_BUNDLE, else the checkout's neighbour, else fetched and kept.

    Says so before it fetches. Raises UserError where they cannot be had.
    """
    cure = "set NANOGPT2_CORE_BUNDLE to DIR"
    if named := os.environ.get("NANOGPT2_CORE_BUNDLE"):
        return find_bundle(Path(named), cure)
    beside = Path(nanogpt2.__file__).resolve().parents[2] / "shared" / "core_eval_bundle"
    if beside.is_dir():
        return beside
    if kept_bundle() is None:
        print("fetching CORE's tasks, once (162 MB)", file=sys.stderr)
    return find_bundle(cure=cure)


def by_label(tasks: Iterable[Task]) -> dict[str, Task]:
    """Label -> task."""
    return {task.label: task for task in tasks}


def kind_rows(tasks: Sequence[Task]) -> list[list[Any]]:
    """Rows: kind, how many tasks, how many examples, the labels."""
    rows: list[list[Any]] = []
    for kind in Kind:
        found = [task for task in tasks if task.kind is kind]
        counts = [len(found), sum(len(task.items) for task in found)]
        names = ", ".join(task.label for task in found)
        rows.append([kind.value.replace("_", " "), *counts, names])
    return rows


def size_rows(bundle: Path) -> list[list[Any]]:
    """Rows: a size of GPT-2, its CORE from its published accuracies by both tables of chance."""
    tasks = load_tasks(bundle)
    first = {task.label: task.baseline for task in tasks}
    corrected = {task.label: task.corrected_baseline for task in tasks}
    return [
        [size, core_of(scores, first), core_of(scores, corrected)]
        for size, scores in published_scores(bundle).items()
    ]


def guessing(task: Task) -> tuple[float, float]:
    """Accuracy of picking an option at random, and of always picking the place most often right."""
    field = task.kind.options_field
    if field is None:
        return 0.0, 0.0
    places = Counter(item["gold"] for item in task.items)
    at_random = sum(1 / len(item[field]) for item in task.items) / len(task.items)
    return at_random, max(places.values()) / len(task.items)


def chance_rows(tasks: Sequence[Task]) -> list[list[Any]]:
    """Rows: tasks whose first baseline is not what guessing gives.

    Both tables' baselines, the accuracies of ``guessing``, what the random guesser gets centered.
    """
    rows = []
    for task in tasks:
        at_random, commonest = guessing(task)
        if abs(task.baseline - at_random) > 1e-3:
            gift = f"{centered(at_random, task.baseline):+.3f}"
            rows.append(
                [task.label, task.baseline, task.corrected_baseline, at_random, commonest, gift]
            )
    return rows


def core_of_guessing(tasks: Sequence[Task], corrected: bool = False) -> tuple[float, float]:
    """CORE of the random guesser, and of the one who always picks the commonest place."""
    chance = {t.label: t.corrected_baseline if corrected else t.baseline for t in tasks}
    guesses = [guessing(task) for task in tasks]
    at_random, commonest = (
        core_of({t.label: pair[kind] for t, pair in zip(tasks, guesses, strict=True)}, chance)
        for kind in (0, 1)
    )
    return at_random, commonest


def published_counts(tasks: Sequence[Task]) -> dict[str, int]:
    """Examples behind GPT-2's published accuracy of each task: the first 1,000, or all it has."""
    return {task.label: min(len(task.items), int(GPT2_ITEMS_A_TASK)) for task in tasks}


def error_by_formula(
    accuracies: Mapping[str, float], tasks: Sequence[Task], counts: Mapping[str, int]
) -> float:
    """Standard error of CORE from the examples alone: binomial errors, centered, added.

    ``counts`` says how many examples each accuracy is of; ``tasks`` have the baselines.
    """
    parts = (standard_error(accuracies[t.label], counts[t.label]) / (1 - t.baseline) for t in tasks)
    return math.hypot(*parts) / len(tasks)


def margin_rows() -> list[list[Any]]:
    """Rows: record, of how many runs, their mean CORE, how far above GPT-2's."""
    return [
        [name, row.runs, f"{row.core:.4f}", f"{row.core - GPT2_CORE:+.4f}"]
        for name, row in LEADERBOARD.items()
    ]


def bootstrap(result: CoreResult, tasks: Mapping[str, Task], draws: int = 2000) -> np.ndarray:
    """(draws,) COREs, each with the examples of every task drawn again with replacement."""
    generator, total = np.random.default_rng(0), np.zeros(draws)
    for label, found in result.tasks.items():
        right, chance = np.array(found.correct, dtype=float), tasks[label].baseline
        picked = generator.integers(0, len(right), (draws, len(right)))
        total += (right[picked].mean(1) - chance) / (1 - chance)
    return total / len(result.tasks)


def certainty(margin: float, seeds: int, spread: float) -> float:
    """Chance that the mean of ``seeds`` runs lies above the target, the true mean ``margin`` above.

    Runs are normal with standard deviation ``spread``.
    """
    return NormalDist().cdf(margin * math.sqrt(seeds) / spread)


def item_text(task: Task, item: Mapping[str, Any]) -> str:
    """What an example says: question or passage, and its right answer."""
    if task.kind is Kind.LANGUAGE_MODELING:
        return f"{item['context']} {item['continuation']}"
    if task.kind is Kind.SCHEMA:
        return f"{item['context_options'][item['gold']]} {item['continuation']}"
    return f"{item['query']} {item['choices'][item['gold']]}"


def grams(text: str, length: int) -> set[int]:
    """Hashes of all runs of ``length`` words, in lower case."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {hash(tuple(words[i : i + length])) for i in range(len(words) - length + 1)}


@cache
def corpus_grams(length: int) -> frozenset[int]:
    """``grams`` of the whole embedded corpus (a few seconds)."""
    from nanogpt2.data.corpus import write_embedded_corpus
    from nanogpt2.data.shards import find_shards, read_documents

    found: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        write_embedded_corpus(Path(folder) / "corpus")
        for shard in find_shards(Path(folder) / "corpus").files:
            for text in read_documents(shard):
                found |= grams(text, length)
    return frozenset(found)


def overlaps(task: Task, length: int) -> list[dict[str, Any]]:
    """Of the first ``MOST`` shuffled examples, those with ``length`` words like the corpus."""
    seen, pool = corpus_grams(length), task.sample(MOST).pool[:MOST]
    return [item for item in pool if grams(item_text(task, item), length) & seen]


def overlap_rows(tasks: Sequence[Task]) -> list[list[Any]]:
    """Rows: tasks with any overlap, examples looked at, those with 8 and 13 words in common."""
    rows = []
    for task in tasks:
        found = [len(overlaps(task, length)) for length in (8, 13)]
        if any(found):
            rows.append([task.label, min(MOST, len(task.items)), *found])
    return rows


@torch.no_grad()
def mean_loss(model: Any, tokens: Sequence[int], start: int) -> float:
    """Mean nats of tokens ``start`` to the end, each from those before it, one row at a time."""
    row = torch.tensor([list(tokens)])
    losses = model(row[:, :-1], row[:, 1:], loss_reduction="none")
    return float(losses[start - 1 :].mean())


@torch.no_grad()
def first_choices(model: Any, tokens: Sequence[int]) -> list[int]:
    """The likeliest next token after each but the last of ``tokens``."""
    return model(torch.tensor([list(tokens[:-1])]))[0].argmax(-1).tolist()
