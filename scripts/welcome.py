"""The welcome page: the fall of the price as a figure to touch, and the path with its minutes."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from nanogpt2 import lab, reported
from nanogpt2.costs import gpt2_dollars
from nanogpt2.recipes import RECIPES
from nanogpt2.reporting.figures import COLOURS, plotting, svg
from scripts.paths import CHAPTERS
from scripts.rooms import Chapter


class Milestone(NamedTuple):
    """One way to a model as good as GPT-2."""

    name: str
    dollars: float
    told: str
    """hours, score, and what made the difference"""


def milestones() -> list[Milestone]:
    """From GPT-2 itself to the last record, all as reported."""
    found = [
        Milestone("GPT-2, 2019", gpt2_dollars(), f"{reported.GPT2_HOURS:.0f} hours on "
                  f"{reported.GPT2_DEVICES:.0f} TPU v3; CORE {reported.GPT2_CORE:.4f}, the mark "
                  "that all others had to pass"),
        Milestone("llm.c, 2024", float(reported.LLMC_DOLLARS), f"{reported.LLMC_HOURS:.0f} hours "
                  "on eight H100: the model and the method of 2019, with the hardware, the "
                  "software and the text of 2024"),
    ]  # fmt: skip
    for name, row in reported.LEADERBOARD.items():
        dollars = row.hours * reported.NODE_DOLLARS_PER_HOUR
        told = f"{row.hours:.2f} hours on eight H100; CORE {row.core:.4f}; {RECIPES[name].summary}"
        found.append(Milestone(f"run {name[3:]}, {row.date[:7]}", dollars, told))
    return found


def price_frame(model: str) -> tuple[str, str]:
    """Dollars of every milestone on a logarithmic scale, one of them pointed out."""
    ways = milestones()
    at = [one.name for one in ways].index(model)
    with plotting(5.2, 3.2) as (fig, axes):
        for row, one in enumerate(ways):
            chosen = row == at
            look = {"color": COLOURS[1 if chosen else 0], "markersize": 11 if chosen else 6}
            axes.plot([one.dollars], [row], "o", **look)
            weight = "bold" if chosen else "normal"
            axes.text(one.dollars * 1.22, row, f"${one.dollars:,.0f}", va="center", weight=weight)
        names = [one.name for one in ways]
        axes.set(xscale="log", xlim=(20, 200_000), yticks=range(len(ways)), yticklabels=names)
        axes.set_xticks([100, 1000, 10_000, 100_000], ["$100", "$1,000", "$10,000", "$100,000"])
        axes.minorticks_off()
        axes.invert_yaxis()
    fall = ways[0].dollars / ways[at].dollars
    times = f", about {float(f'{fall:.2g}'):,.0f} times cheaper than in 2019" if at else ""
    said = f"{model}: {ways[at].dollars:,.0f} dollars{times}."
    listed = "; ".join(f"{one.name} {one.dollars:,.0f} dollars" for one in ways)
    shown = f"{svg(fig, listed)}<p><strong>{said}</strong> {ways[at].told}.</p>"
    return shown, f"{said} {ways[at].told}. All: {listed}."


def price_figure() -> str:
    """The figure as a part of a page: works by mouse, touch and keys, without a kernel."""
    names = [one.name for one in milestones()]
    caption = (
        "What it cost to train GPT-2, and models as good. Move the slider down the years. "
        "Dollars are reported hours at a reported price (nanochat; llm.c; Synced)."
    )
    shown = lab.explore(
        price_frame, model=names, start={"model": "run 1, 2026-01"}, caption=caption
    )
    return f"```{{raw}} html\n{shown.html}\n```"


def path_table(known: list[Chapter], minutes: dict[str, int]) -> str:
    """The chapters that are written, in order, each with its question and its minutes."""
    rows = ["| | chapter | its question | minutes |", "| --: | --- | --- | --: |"]
    total = 0
    for number, chapter in enumerate(known, 1):
        if chapter.document is None:
            continue
        path = CHAPTERS / f"{chapter.document.removeprefix('chapters/')}.ipynb"
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
        asked = re.search(r"^\*\*(.+?)\*\*$", "".join(cells[0]["source"]), re.M)
        total += minutes[path.stem]
        rows.append(
            f"| {number} | {chapter.link} | {asked.group(1) if asked else ''} | "
            f"{minutes[path.stem]} |"
        )
    rows.append(f"| | together | | {total} |")
    return "\n".join(rows)
