"""The planner against reality, as tables of the results page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from nanogpt2.costs import RECORD_DEVICES, record_mfu
from nanogpt2.lab.records import Record, recorded
from nanogpt2.machines import GB, machine_of
from nanogpt2.planning import plan
from nanogpt2.recipes import RECIPES
from scripts.facts import badge
from scripts.pages import anchor

STEP = re.compile(r"(?P<recipe>\w+) d(?P<depth>\d+), (?P<rows>\d+) x [\d,]+ tokens")
"""how ``benchmarks.step`` names what it measured"""


def compared(planned: float, measured: float) -> list[str]:
    """Cells: planned, measured, and the first over the second."""
    return [f"{planned:.3g}", f"{measured:.3g}", f"{planned / measured:.2f}"]


def on_processor(runs: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """Rows: a configuration, then memory and step as planned, measured, and their ratio."""
    for name, one in runs.items():
        memory = compared(one["GB planned"], one["GB measured"])
        yield [name, *memory, *compared(one["s planned"], one["s measured"])]


def on_h100(measured: Record) -> Iterator[list[str]]:
    """Rows of the peak memory of a step on one H100, of what the record has."""
    for row in measured.results["rows"]:
        what, _, kind = row["what"].partition(": ")
        if kind == "peak memory" and (found := STEP.match(what)):
            named = {name: int(found[name]) for name in ("depth", "rows")}
            made = plan(
                found["recipe"], named["depth"], machine_of("H100"), most_rows=named["rows"]
            )
            yield [what, *compared(made.memory.peak / GB, row["value"])]


def of_records() -> Iterator[list[str]]:
    """Rows: hours by the utilization of the record before, then as it is known now; dollars."""
    node = machine_of("H100", RECORD_DEVICES)
    records = [recipe for recipe in RECIPES.values() if recipe.record]
    for before, recipe in zip([None, *records], records, strict=False):
        made, told = plan(recipe, None, node), recipe.record
        assert told and made.seconds and made.dollars
        ahead = ["", ""]
        if before:
            hours = (plan(recipe, None, node, mfu=record_mfu(before)).seconds or 0) / 3600
            ahead = [f"{hours:.2f}", f"{hours / told.hours:.2f}"]
        cells = [f"{made.seconds / 3600:.2f}", f"{told.hours:.2f}", f"{made.dollars:.0f}"]
        yield [recipe.name, *ahead, *cells, f"{made.memory.peak / GB:.0f}"]


def markdown(head: list[str], rows: Iterator[list[str]]) -> str:
    """A table whose first column is text."""
    sides = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, sides, *rows])


def planner_part(folder: Path | None = None) -> str:
    """The three tables, each with where its numbers are from."""
    cpu, gpu = (recorded(f"benchmarks-{name}", folder) for name in ("planner", "h100-step"))
    memory = ["GB planned", "GB measured", "GB ratio"]
    step = ["s planned", "s measured", "s ratio"]
    ahead, known = ["hours ahead", "of those reported"], ["hours planned", "hours reported"]
    load = [one["load"] for one in cpu.results["runs"].values()]
    parts = (
        f"**On a processor**, whole processes: memory at the peak, and a step's time. {_of(cpu)} "
        f"While they ran, {min(load):.0f} to {max(load):.0f} processes wanted a core, of which "
        f"there are {cpu.configuration['cores']}.",
        markdown(["configuration", *memory, *step], on_processor(cpu.results["runs"])),
        f"**On one H100**, what torch allocated at the peak of a step. {_of(gpu)}",
        markdown(["step", *memory], on_h100(gpu)),
        "**The six records on 8xH100.** Hours *ahead* are what the planner would have said with "
        "the utilization that the record before had reached; hours *planned* are reckoned with "
        f"the record's own, and so agree by construction. {badge('reported')}",
        markdown(["run", *ahead, *known, "dollars", "GB a GPU"], of_records()),
    )
    return "\n\n".join(parts)


def _of(kept: Record) -> str:
    return f"[{kept.device}](#{anchor(kept.name)}) {badge('recorded')}"
