"""Pictures and measurements of the chapter on CORE."""

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
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import nanogpt2
from nanogpt2.data.bundle import find_bundle, kept_bundle
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.core.report import GPT2_CORE
from nanogpt2.evals.core.results import CoreResult
from nanogpt2.evals.core.statistics import centered, core_of
from nanogpt2.evals.core.tasks import Kind, Task
from nanogpt2.lab.style import COLOURS, figure, style


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
        names = ", ".join(task.label for task in found)
        rows.append(
            [kind.value.replace("_", " "), len(found), sum(len(t.items) for t in found), names]
        )
    return rows


def centering_frame(guessing: str, accuracy: float) -> tuple[Figure, str]:
    """An accuracy between chance and perfect, as a bar; a frame for ``explore``."""
    chance = {"1 of 4 options": 0.25, "1 of 2 options": 0.5, "exact text": 0.0}[guessing]
    value = centered(accuracy, chance)
    fig, axes = figure(height=1.7)
    with style():
        axes.barh([0], [1.0], color="none", edgecolor=COLOURS[5], height=0.5)
        axes.barh([0], [accuracy], color=COLOURS[0], height=0.5)
        axes.axvline(chance, color=COLOURS[1], linestyle="-")
        axes.set(xlim=(0, 1), yticks=[], xlabel="accuracy", ylim=(-0.5, 0.5))
        axes.grid(False)
        axes.set_title(f"centered: {value:+.2f}")
    alt = f"Accuracy {accuracy:g} where guessing gives {chance:g}: centered accuracy {value:+.2f}."
    return fig, alt


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


def error_by_formula(accuracies: Mapping[str, float], tasks: Sequence[Task]) -> float:
    """Standard error of CORE from the examples alone: binomial errors, centered, added."""
    parts = [
        accuracies[t.label] * (1 - accuracies[t.label]) / len(t.items) / (1 - t.baseline) ** 2
        for t in tasks
    ]
    return math.sqrt(sum(parts)) / len(tasks)


def bootstrap(result: CoreResult, tasks: Mapping[str, Task], draws: int = 2000) -> np.ndarray:
    """(draws,) COREs, each with the examples of every task drawn again with replacement."""
    generator, total = np.random.default_rng(0), np.zeros(draws)
    for label, found in result.tasks.items():
        right, chance = np.array(found.correct, dtype=float), tasks[label].baseline
        picked = generator.integers(0, len(right), (draws, len(right)))
        total += (right[picked].mean(1) - chance) / (1 - chance)
    return total / len(result.tasks)


def bootstrap_figure(values: np.ndarray, core: float) -> tuple[Figure, str]:
    """A histogram of ``bootstrap``."""
    fig, axes = figure(height=2.5)
    with style():
        axes.hist(values, bins=40, color=COLOURS[0])
        axes.axvline(core, color=COLOURS[1], linestyle="-")
        axes.set(xlabel="CORE, with the examples drawn again", yticks=[])
    low, high = np.quantile(values, [0.025, 0.975])
    alt = (
        f"A bell-shaped histogram around {core:.3f}; 95 of 100 redrawn samples lie between "
        f"{low:.3f} and {high:.3f}."
    )
    return fig, alt


def certainty(margin: float, seeds: int, spread: float) -> float:
    """Chance that the mean of ``seeds`` runs lies above the target, the true mean ``margin`` above.

    Runs are normal with standard deviation ``spread``.
    """
    return 0.5 * (1 + math.erf(margin * math.sqrt(seeds) / spread / math.sqrt(2)))


def seeds_frame(margin: float, seeds: int, spread: float = 0.0062) -> tuple[Figure, str]:
    """What the mean of so many runs may come out as, beside GPT-2's score; for ``explore``."""
    error = spread / math.sqrt(seeds)
    x = np.linspace(GPT2_CORE - 0.015, GPT2_CORE + 0.03, 300)
    y = np.exp(-0.5 * ((x - GPT2_CORE - margin) / error) ** 2)
    above = certainty(margin, seeds, spread)
    fig, axes = figure(height=2.3)
    with style():
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
    from nanogpt2.data.shards import list_shards, read_documents

    found: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        write_embedded_corpus(Path(folder) / "corpus")
        for shard in list_shards(Path(folder) / "corpus"):
            for text in read_documents(shard):
                found |= grams(text, length)
    return frozenset(found)


def overlaps(task: Task, length: int, most: int = 300) -> list[dict[str, Any]]:
    """Of the first ``most`` shuffled examples, those with ``length`` words like the corpus."""
    seen, pool = corpus_grams(length), task.sample(most).pool[:most]
    return [item for item in pool if grams(item_text(task, item), length) & seen]


def overlap_rows(
    tasks: Sequence[Task], lengths: Sequence[int] = (8, 13), most: int = 300
) -> list[list[Any]]:
    """Rows: tasks with any overlap, examples looked at, those with each length in common."""
    rows = []
    for task in tasks:
        found = [len(overlaps(task, length, most)) for length in lengths]
        if any(found):
            rows.append([task.label, min(most, len(task.items)), *found])
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
