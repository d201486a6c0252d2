"""CORE shown: a table beside GPT-2's four published sizes, and what to say of it. Chapter: core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from nanogpt2.evals.core.results import CORE_TASKS, CoreResult, TaskResult
from nanogpt2.evals.core.statistics import baseline_of, core_of
from nanogpt2.reported import GPT2_CORE, GPT2_CORE_CORRECTED

Scores = Mapping[str, Mapping[str, float]]
"""GPT-2 size -> task -> published accuracy"""


def core_table(result: CoreResult, published: Scores, width: int | None = None) -> Table:
    """Per task: accuracy, centered, its standard error, and GPT-2's accuracies.

    A terminal of ``width`` columns gets the first that fit: three at least, task names folded.
    """
    tasks = result.tasks
    asked = sum(len(task.correct) for task in tasks.values())
    named: list[tuple[str, Callable[[TaskResult], str], str]] = [
        ("accuracy", lambda task: f"{task.accuracy:.4f}", ""),
        ("centered", lambda task: f"{task.centered:+.4f}", f"{result.core:+.4f}"),
        ("corrected", lambda t: f"{t.centered_corrected:+.4f}", f"{result.core_corrected:+.4f}"),
        ("s.e.", lambda task: f"{task.standard_error:.4f}", f"{result.standard_error:.4f}"),
        ("examples", lambda task: f"{len(task.correct):,}", f"{asked:,}"),
    ]
    columns = [["task", *tasks, "CORE" if result.is_complete else "mean"]]
    columns += [[name, *map(cell, tasks.values()), total] for name, cell, total in named]
    baselines = {
        label: baseline_of(t.accuracy, t.centered) if t.baseline is None else t.baseline
        for label, t in tasks.items()
    }
    for size, scores in reversed(list(published.items())):  # the one to beat first
        chosen = {label: scores[label] for label in tasks if label in scores}
        total = f"{core_of(chosen, baselines):.4f}" if chosen else ""
        cells = [f"{chosen[label]:.4f}" if label in chosen else "" for label in tasks]
        columns.append([f"GPT-2 {size}", *cells, total])
    while width is not None and len(columns) > 3 and _width(columns) > width:
        columns.pop()
    title = escape(f"{result.label}, protocol {result.protocol}")
    table = Table(title=title, title_justify="left")
    if width is not None and _width(columns) > width:  # too narrow for rules: none
        table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    table.add_column("task", overflow="fold")
    for name, *_ in columns[1:]:
        dim = "dim" if name.startswith("GPT-2") else None
        table.add_column(name, justify="right", no_wrap=True, style=dim)
    *rows, totals = list(zip(*columns, strict=True))[1:]
    for row in rows:
        table.add_row(*map(escape, row))
    table.add_section()
    table.add_row(*totals, style="bold")
    return table


def _width(columns: list[list[str]]) -> int:
    """Characters of a line: each column with a blank on both sides and a rule before it."""
    return 1 + sum(3 + max(map(len, column)) for column in columns)


def verdict(core: Mapping[str, Any]) -> str:
    """The result in two sentences, with what a careful reader should know of it.

    ``core`` is what ``CoreResult.to_dict`` gives, or was read from a ``core.json``.
    """
    score, error = core["core"], core["standard_error"]
    said = (
        f"{core['label']}: {score:.4f}, standard error {error:.4f} (bootstrap over examples); "
        f"{core['core_corrected']:.4f} with the corrected baselines."
    )
    if core["sample"] or len(core["tasks"]) != CORE_TASKS:
        return said + " Not to be compared with a published CORE."
    if core["protocol"] != "nanochat":
        return said + " GPT-2's 0.2565 was measured with the other protocol, nanochat."
    margin = score - GPT2_CORE
    side = "above" if margin > 0 else "below"
    return said + (
        f" GPT-2 (1.5B) has {GPT2_CORE} ({GPT2_CORE_CORRECTED} corrected): this is "
        f"{abs(margin):.4f} {side} it, {abs(margin) / error:.1f} standard errors."
    )
