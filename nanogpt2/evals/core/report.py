"""CORE shown: a table beside GPT-2's four published sizes, and a figure for a web page.

Chapter: core.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from nanogpt2.evals.core.results import CoreResult, TaskResult
from nanogpt2.evals.core.statistics import centered, core_of
from nanogpt2.reported import GPT2_CORE

LOOK: dict[Any, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("xtick.color", "ytick.color", "axes.labelcolor"), "#777777"),
    **dict.fromkeys(("axes.titlecolor", "legend.labelcolor"), "#777777"),
    "axes.titlelocation": "left",
    **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
}
"""of the figure: nothing behind it, and grey words that both light and dark pages show"""

Scores = Mapping[str, Mapping[str, float]]
"""GPT-2 size -> task -> published accuracy"""


def baseline_of(accuracy: float, centered: float) -> float:
    """b of c = (a - b) / (1 - b); an accuracy of 1 tells nothing, and any b centers it.

    So a result needs no bundle to be shown beside others.
    """
    return 0.0 if centered == 1 else (accuracy - centered) / (1 - centered)


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
    baselines = {label: baseline_of(t.accuracy, t.centered) for label, t in tasks.items()}
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


def verdict(result: CoreResult) -> str:
    """The result in two sentences, with what a careful reader should know of it."""
    said = (
        f"{result.label}: {result.core:.4f}, standard error {result.standard_error:.4f} "
        f"(bootstrap over examples); {result.core_corrected:.4f} with the corrected baselines."
    )
    if not result.is_complete or result.is_sample:
        return said + " Not to be compared with a published CORE."
    if result.protocol != "nanochat":
        return said + " GPT-2's 0.2565 was measured with the other protocol, nanochat."
    margin = result.core - GPT2_CORE
    side = "above" if margin > 0 else "below"
    return said + (
        f" GPT-2 (1.5B) has {GPT2_CORE}: this is {abs(margin):.4f} {side} it, "
        f"{abs(margin) / result.standard_error:.1f} standard errors."
    )


def core_figure(core: Mapping[str, Any], published: Scores | None = None) -> str:
    """Bars of centered accuracy per task as one self-contained SVG element for a web page.

    Args:
        core: what ``CoreResult.to_dict`` gives, or was read from a ``core.json``.
        published: from ``bundle.published_scores``; its largest size is marked by diamonds.

    Light and dark pages both can show it; whiskers are one standard error.
    """
    from matplotlib import rc_context  # the command draws none
    from matplotlib.figure import Figure

    tasks = core["tasks"]
    labels = list(tasks)[::-1]
    values = [tasks[label]["centered"] for label in labels]
    chance = [baseline_of(tasks[label]["accuracy"], tasks[label]["centered"]) for label in labels]
    errors = [  # once centered, an accuracy's error is wider
        tasks[label].get("standard_error", 0.0) / (1 - b)
        for label, b in zip(labels, chance, strict=True)
    ]
    with rc_context(LOOK):
        figure = Figure(figsize=(7.2, 0.8 + 0.27 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(labels))
        axes.barh(rows, values, xerr=errors, color="#4477aa", ecolor="#888888", label="this model")
        if published:
            size, scores = list(published.items())[-1]
            known = [row for row in rows if labels[row] in scores]
            marks = [centered(scores[labels[row]], chance[row]) for row in known]
            axes.plot(marks, known, "D", color="#cc6677", ms=4, label=f"GPT-2 {size}")
            axes.legend(loc="lower right", frameon=False)
        axes.set_yticks(rows, labels, fontsize=8)
        axes.axvline(0, color="#888888", lw=0.8)
        axes.set_xlabel("centered accuracy: 0 is guessing, 1 is all right")
        axes.set_title(f"{core['label']}: {core['core']:.4f} ± {core['standard_error']:.4f}")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    best, worst = (pick(labels, key=lambda k: tasks[k]["centered"]) for pick in (max, min))
    described = (
        f"Centered accuracy of {len(labels)} tasks as bars, from "
        f"{tasks[worst]['centered']:+.2f} ({worst}) to {tasks[best]['centered']:+.2f} ({best})"
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # no fixed size: the page decides; a name for those who cannot see it
    svg = re.sub(r' height="[^"]*"', "", svg, count=1)
    named = f' width="100%" role="img" aria-label="{described}"'
    return re.sub(r' width="[^"]*"', named, svg, count=1)
