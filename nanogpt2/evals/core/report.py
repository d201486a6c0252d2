"""CORE shown: a table beside GPT-2's four published sizes, and a figure for a web page.

Chapter: core.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from nanogpt2.evals.core.results import CoreResult, TaskResult
from nanogpt2.evals.core.statistics import centered, core_of
from nanogpt2.reported import GPT2_CORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Mapping[str, Mapping[str, float]]
"""GPT-2 size -> task -> published accuracy"""


def baselines_of(result: CoreResult) -> dict[str, float]:
    """The baseline of every task, from its accuracy and centered accuracy.

    c = (a - b) / (1 - b), so b = (a - c) / (1 - c); an accuracy of 1 tells nothing (b is given 0,
    and centers 1 all the same).
    """
    return {
        label: 0.0 if task.centered == 1 else (task.accuracy - task.centered) / (1 - task.centered)
        for label, task in result.tasks.items()
    }


def core_table(result: CoreResult, published: Scores, width: int | None = None) -> Table:
    """Per task: accuracy, centered, its standard error, and GPT-2's accuracies.

    A terminal of ``width`` columns gets the first that fit: three at least, task names folded.
    """
    columns = [
        _task_column(result, "task", lambda label, task: label),
        _task_column(result, "accuracy", lambda label, task: f"{task.accuracy:.4f}"),
        _task_column(result, "centered", lambda label, task: f"{task.centered:+.4f}"),
        _task_column(result, "corrected", lambda label, task: f"{task.centered_corrected:+.4f}"),
        _task_column(result, "s.e.", lambda label, task: f"{task.standard_error:.4f}"),
        _task_column(result, "examples", lambda label, task: f"{len(task.correct):,}"),
    ]
    totals = [
        "CORE" if result.is_complete else "mean",
        "",
        f"{result.core:+.4f}",
        f"{result.core_corrected:+.4f}",
        f"{result.standard_error:.4f}",
        f"{sum(len(task.correct) for task in result.tasks.values()):,}",
    ]
    baselines = baselines_of(result)
    for size, scores in reversed(list(published.items())):  # the one to beat first
        chosen = {label: scores[label] for label in result.tasks if label in scores}
        columns.append([f"GPT-2 {size}", *(_cell(scores.get(label)) for label in result.tasks)])
        totals.append(_cell(core_of(chosen, baselines) if chosen else None))
    columns = [[*column, total] for column, total in zip(columns, totals, strict=True)]
    while width is not None and len(columns) > 3 and _width(columns) > width:
        columns.pop()
    return _table(columns, f"{result.label}, protocol {result.protocol}", width)


def _task_column(
    result: CoreResult, name: str, cell: Callable[[str, TaskResult], str]
) -> list[str]:
    return [name, *(cell(label, task) for label, task in result.tasks.items())]


def _width(columns: list[list[str]]) -> int:
    """Characters of a line: each column with a blank on both sides and a rule before it."""
    return 1 + sum(3 + max(map(len, column)) for column in columns)


def _table(columns: list[list[str]], title: str, width: int | None) -> Table:
    """Columns of header, cells and total as a table; too narrow for rules, it has none."""
    table = Table(title=escape(title), title_justify="left")
    if width is not None and _width(columns) > width:
        table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    for place, (name, *_) in enumerate(columns):
        if place == 0:
            table.add_column(name, overflow="fold")
        else:
            dim = "dim" if name.startswith("GPT-2") else None
            table.add_column(name, justify="right", no_wrap=True, style=dim)
    *rows, total = list(zip(*columns, strict=True))[1:]
    for row in rows:
        table.add_row(*map(escape, row))
    table.add_section()
    table.add_row(*total, style="bold")
    return table


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


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

    Colours follow the page's text colour, so that light and dark pages both can show it; whiskers
    are one standard error.
    """
    from matplotlib.figure import Figure  # the command draws none

    tasks = core["tasks"]
    labels = list(tasks)[::-1]
    figure = Figure(figsize=(7.2, 0.8 + 0.27 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    rows = range(len(labels))
    values = [tasks[label]["centered"] for label in labels]
    scale = [_stretch(tasks[label]) for label in labels]
    errors = [tasks[k].get("standard_error", 0.0) * s for k, s in zip(labels, scale, strict=True)]
    axes.barh(rows, values, xerr=errors, color="#4477aa", ecolor="#888888", label="this model")
    if published:
        size, scores = list(published.items())[-1]
        marks = [
            (row, centered(scores[label], _baseline(tasks[label])))
            for row, label in enumerate(labels)
            if label in scores
        ]
        axes.plot(
            [x for _, x in marks],
            [y for y, _ in marks],
            "D",
            color="#cc6677",
            ms=4,
            label=f"GPT-2 {size}",
        )
        axes.legend(loc="lower right", frameon=False, labelcolor="#777777")
    axes.set_yticks(rows, labels, fontsize=8)
    axes.axvline(0, color="#888888", lw=0.8)
    axes.set_xlabel("centered accuracy: 0 is guessing, 1 is all right")
    axes.set_title(
        f"{core['label']}: {core['core']:.4f} ± {core['standard_error']:.4f}",
        loc="left",
        color="#777777",
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    best, worst = (pick(labels, key=lambda k: tasks[k]["centered"]) for pick in (max, min))
    described = (
        f"Centered accuracy of {len(labels)} tasks as bars, from "
        f"{tasks[worst]['centered']:+.2f} ({worst}) to {tasks[best]['centered']:+.2f} ({best})"
    )
    return _svg(figure, described)


def _baseline(task: Mapping[str, float]) -> float:
    a, c = task["accuracy"], task["centered"]
    return 0.0 if c == 1 else (a - c) / (1 - c)


def _stretch(task: Mapping[str, float]) -> float:
    """How much wider an accuracy's error is once centered."""
    return 1.0 / (1.0 - _baseline(task))


def _svg(figure: Figure, name: str) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
        axes.tick_params(colors="#777777")
        axes.xaxis.label.set_color("#777777")
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # no fixed size: the page decides; a name for those who cannot see it
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(
        r'(<svg\b[^>]*?) width="[^"]*"',
        rf'\1 width="100%" role="img" aria-label="{name}"',
        svg,
        count=1,
    )
