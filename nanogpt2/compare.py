"""Runs beside each other: what differs, and whether the difference is more than chance.

``python -m nanogpt2.compare runs/a runs/b [...]`` writes ``compare.html`` and ``compare.json``.
Runs that differ in their seed alone are one *arm*; the first run's arm is the baseline. Finals are
compared seed by seed (``reporting.statistics``), CORE item by item too. Chapters: speedrun, core.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_directory, named_path, write_json
from nanogpt2.recipes import Recipe, differences
from nanogpt2.reporting.figures import COLOURS
from nanogpt2.reporting.report import number, templates
from nanogpt2.reporting.run import Point, Run, load_run
from nanogpt2.reporting.statistics import Comparison, compare, seeds_needed, verdicts
from nanogpt2.run import WARMUP_STEPS

AXES = {
    "step": "steps",
    "tokens": "tokens",
    "flops": "FLOPs",
    "seconds": "seconds of training",
}
MACHINE = ("processor", "gpus", "torch", "commit")


@dataclass(frozen=True)
class Measure:
    """What a run ends with."""

    title: str
    of: Callable[[Run], float | None]
    sign: int = 1
    """-1 where more is better"""
    form: str = ".4f"


MEASURES = {
    "val_bpb": Measure("bits per byte, held out", lambda run: run.evaluation.get("val_bpb")),
    "core": Measure("CORE", lambda run: run.core.get("core"), -1),
    "seconds": Measure("seconds of training", lambda run: run.timed, 1, ".1f"),
}


@dataclass(frozen=True)
class Arm:
    """Runs of one configuration, by seed."""

    name: str
    runs: Mapping[int, Run]

    @cached_property
    def one(self) -> Run:
        """Any of them: what they share."""
        return next(iter(self.runs.values()))

    def finals(self, measure: Measure) -> dict[int, float]:
        """What its finished runs ended with, by seed."""
        found = {seed: measure.of(run) for seed, run in self.runs.items() if run.evaluation}
        return {seed: value for seed, value in found.items() if value is not None}

    def curve(self, axis: str) -> list[Point]:
        """Validation over steps, tokens, FLOPs or seconds: the mean at the steps of the first run.

        Of the others it is read between neighbours: the clock may have given them other lengths.
        """
        curves = [tuple(zip(*_curve(run, axis), strict=True)) for run in self.runs.values()]
        if not all(curves):
            return []
        low, high = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
        shared = [step for step in curves[0][0] if low <= step <= high]
        read = [
            [np.interp(shared, steps, side) for side in zip(*points, strict=True)]
            for steps, points in curves
        ]
        return [(float(x), float(y)) for x, y in np.mean(read, axis=0).T]


def _curve(run: Run, axis: str) -> Iterator[tuple[int, Point]]:
    """(step, (place on the axis, bits per byte)) wherever validation was measured."""
    flops = run.config["dial"]["flops_per_token"]
    for record in run.metrics:
        if isinstance(record.get("val_bpb"), (int, float)):
            place = record["tokens"] * flops if axis == "flops" else record[axis]
            yield record["step"], (place, record["val_bpb"])


def arms_of(folders: Sequence[Path]) -> list[Arm]:
    """Runs by configuration, in the order of their folders.

    Raises UserError where they cannot be compared: no run, nothing measured, the same one twice,
    nothing but seeds that differ, other held-out text, more arms than a page can tell apart.
    """
    groups: dict[str, dict[int, Run]] = {}
    for folder in folders:
        run = load_run(folder)
        seed = run.config.get("seed", 0)
        if not run.points("val_bpb"):
            raise UserError(f"{folder} has no validation yet; let it train on, or leave it out")
        group = groups.setdefault(_configuration(run), {})
        if seed in group:
            raise UserError(
                f"{group[seed].folder} and {folder} are the same run: configuration, commit and "
                f"seed {seed} agree; leave one out, or train it with another --seed"
            )
        group[seed] = run
    if len(groups) < 2:
        raise UserError(
            "the runs differ in nothing but their seeds; name a run of another configuration too"
        )
    if len(groups) > len(COLOURS):
        raise UserError(
            f"the runs are of {len(groups)} configurations; give at most {len(COLOURS)}, which a "
            "reader can tell apart"
        )
    runs = [next(iter(group.values())) for group in groups.values()]
    for run in runs[1:]:
        if _held_out(run) != _held_out(runs[0]):
            raise UserError(
                f"{runs[0].folder} and {run.folder} were scored on different held-out text, whose "
                "bits per byte do not compare; train both with the same --data"
            )
    names = _names([[run.folder.name for run in group.values()] for group in groups.values()])
    return [
        Arm(name, dict(sorted(group.items())))
        for name, group in zip(names, groups.values(), strict=True)
    ]


def _configuration(run: Run) -> str:
    """All but the seed that decides what a run learns, its code among it."""
    identity = {k: v for k, v in run.config.get("identity", {}).items() if k != "seed"}
    return repr((identity, run.config.get("machine", {}).get("commit")))


def _held_out(run: Run) -> list[str]:
    text = run.config.get("identity", {}).get("text", {})
    return sorted(digest for _, digest in text.get("held_out", []))


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """What the folders of each arm have in common; all their names where that is no name."""
    short = [
        os.path.commonprefix(group).rstrip("-_.0123456789") or group[0] if len(group) > 1
        else group[0]
        for group in groups
    ]  # fmt: skip
    full = [", ".join(group) for group in groups]
    return short if len(set(short)) == len(short) else [f"{n}: {f}" for n, f in enumerate(full, 1)]


def settings(arm: Arm, baseline: Arm) -> dict[str, tuple[Any, Any]]:
    """What differs: setting -> (the baseline's, the arm's); recipe, data, precision, machine."""
    ours, theirs = (Recipe.from_dict(each.one.config["recipe"]) for each in (arm, baseline))
    found = differences(theirs, ours)
    a, b = (_around(each.one) for each in (baseline, arm))
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return found | {name: (a.get(name, "-"), b.get(name, "-")) for name in names}


def _around(run: Run) -> dict[str, Any]:
    identity, machine = run.config.get("identity", {}), run.config.get("machine", {})
    train = sorted(digest for _, digest in identity.get("text", {}).get("train", []))
    return {
        "data": run.config.get("data"),
        "training text": f"{len(train)} shards, {''.join(train)[:8]}",
        "tokenizer": str(identity.get("tokenizer", ""))[:8],
        "start": f"{run.config.get('init_from')}, {str(identity['start'])[:8]}"
        if "start" in identity
        else "its seed",
        "rates": identity.get("rate_scale", 1),
        "minutes": identity.get("minutes"),
        "products in": run.training.get("precision"),
        "processes": run.training.get("world_size"),
        **{name: machine[name] for name in MACHINE if name in machine},
    }


@dataclass(frozen=True)
class Compared:
    """One measure of one arm against the baseline's."""

    arm: str
    measure: str
    found: Comparison
    verdict: str
    needed: int | None
    """seeds that would show a difference as large as this one; None with one seed"""
    items: float | None = None
    """standard error that CORE's items leave in the difference; None where they are not the same"""


def compared(arms: Sequence[Arm]) -> list[Compared]:
    """Each arm minus the first, by seeds that both have; judged as one table (Holm, 1979)."""
    rows: list[tuple[str, str, Comparison, float | None]] = []
    baseline = arms[0]
    for arm in arms[1:]:
        items = _items(arm, baseline)
        comparable = {"val_bpb": True, "core": items is not None}
        comparable["seconds"] = _alike(arm, baseline)
        for name, measure in MEASURES.items():
            ours, theirs = arm.finals(measure), baseline.finals(measure)
            seeds = sorted(set(ours) & set(theirs))
            if seeds and comparable[name]:
                found = compare([ours[s] for s in seeds], [theirs[s] for s in seeds])
                rows.append((arm.name, name, found, items if name == "core" else None))
    said = verdicts(
        {
            f"{arm} {name}": replace(found, difference=found.difference * MEASURES[name].sign)
            for arm, name, found, _ in rows
        }
    )
    return [
        Compared(arm, name, found, said[f"{arm} {name}"], _needed(found), items)
        for arm, name, found, items in rows
    ]


def _needed(found: Comparison) -> int | None:
    """Seeds that would show it; more than there are, where these did not."""
    if not found.difference or math.isinf(found.deviation):
        return None
    needed = seeds_needed(found.difference, found.deviation)
    return needed if found.distinguishable else max(needed, found.seeds + 1)


def _alike(arm: Arm, baseline: Arm) -> bool:
    """Whether all runs of both were on machines alike."""
    runs = [*arm.runs.values(), *baseline.runs.values()]
    machines = [
        [_around(run).get(name) for name in ("processor", "gpus", "processes")] for run in runs
    ]
    return all(each == machines[0] for each in machines)


def _items(arm: Arm, baseline: Arm) -> float | None:
    """Standard error of CORE's difference by items; None where both were not asked the same."""
    from nanogpt2.evals.core.statistics import paired_error

    both = _cores(arm, baseline)
    asked = [
        (core["protocol"], {label: task["examples"] for label, task in core["tasks"].items()})
        for pair in both
        for core in pair
    ]
    if not both or any(each != asked[0] for each in asked):
        return None
    return statistics.fmean(paired_error(a["tasks"], b["tasks"]) for a, b in both)


def _cores(arm: Arm, baseline: Arm) -> list[tuple[Any, Any]]:
    """CORE of both, by seed, where both were asked it."""
    seeds = set(arm.runs) & set(baseline.runs)
    both = [(arm.runs[seed].core, baseline.runs[seed].core) for seed in sorted(seeds)]
    return [pair for pair in both if all(pair)]


def notes(arms: Sequence[Arm]) -> Iterator[str]:
    """What a reader should know before believing the tables."""
    baseline = arms[0]
    for arm in arms[1:]:
        shared = set(arm.runs) & set(baseline.runs)
        if not shared:
            yield (
                f"{arm.name} and {baseline.name} share no seed, so their ends are not paired; "
                f"train {arm.name} with --seed {min(baseline.runs)}."
            )
        elif len(shared) == 1:
            yield f"{arm.name}: one seed tells nothing of chance; train both with a second one."
        if not _alike(arm, baseline):
            yield f"{arm.name} ran on another machine than {baseline.name}: seconds do not compare."
        if _cores(arm, baseline) and _items(arm, baseline) is None:
            yield f"{arm.name} was asked other items of CORE than {baseline.name}: not compared."
    for arm in arms:
        if len(steps := sorted({run.metrics[-1]["step"] for run in arm.runs.values()})) > 1:
            told = ", ".join(f"{step:,}" for step in steps)
            yield f"The runs of {arm.name} are of different lengths: {told} steps."
    runs = [run for arm in arms for run in arm.runs.values()]
    for label in sorted({run.core["label"] for run in runs if run.core} - {"CORE"}):
        yield f"What is called CORE here is a {label}."
    asked = {run.evaluation.get("tokens") for run in runs}
    if len(asked - {None}) > 1:
        yield "The final scores are over different numbers of held-out tokens (see the JSON)."
    for arm in arms:
        for run in arm.runs.values():
            if not run.evaluation:
                yield f"{run.folder} is not finished: it is in the curves alone."


def summary(arm: Arm) -> dict[str, Any]:
    """An arm in numbers: means over its seeds, and what each ended with."""
    dial, steps = arm.one.config["dial"], arm.one.metrics[-1]["step"]
    ends = {name: arm.finals(measure) for name, measure in MEASURES.items()}
    return {
        "name": arm.name,
        "runs": [str(run.folder) for run in arm.runs.values()],
        "seeds": list(arm.runs),
        "parameters": dial["parameters"]["total"],
        "steps": steps,
        "tokens": steps * dial["batch_tokens"],
        "flops": steps * dial["batch_tokens"] * dial["flops_per_token"],
        "held_out_tokens": [run.evaluation.get("tokens") for run in arm.runs.values()],
        "ends": ends,
        "means": {name: statistics.fmean(v.values()) if v else None for name, v in ends.items()},
    }


def charts(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Validation of all arms, one chart an axis; each seed pale, their mean firm."""
    from nanogpt2.reporting.charts import Series, line_chart  # matplotlib

    drawn = []
    for axis, title in AXES.items():
        firm = [Series(arm.name, arm.curve(axis)) for arm in arms]
        pale = [
            Series(arm.name, [point for _, point in _curve(run, axis)], raw=True)
            for arm in arms
            if len(arm.runs) > 1
            for run in arm.runs.values()
        ]
        ends = "; ".join(f"{s.name} ends at {s.points[-1][1]:.4f}" for s in firm if s.points)
        alt = f"Validation in bits per byte by {title}: {ends}."
        svg = line_chart(f"By {title}", [*pale, *firm], title, "bits per byte", alt, f"by-{axis}")
        drawn.append({"title": f"By {title}", "svg": svg})
    return drawn


def write(folders: Sequence[Path], out: Path) -> list[Compared]:
    """Compare the runs; page and JSON become the folder ``out``; UserError as ``arms_of``."""
    arms = arms_of(folders)
    found = compared(arms)
    both = {
        "baseline": arms[0].name,
        "arms": [summary(arm) for arm in arms],
        "differences": {arm.name: settings(arm, arms[0]) for arm in arms[1:]},
        "notes": list(notes(arms)),
    }
    page = templates().get_template("compare.html.j2").render(
        both,
        title="Runs of nanogpt2, compared",
        measures=MEASURES,
        rows=found,
        charts=charts(arms),
        left_out=WARMUP_STEPS,
        command=shlex.join(["python", "-m", "nanogpt2.compare", *map(str, folders)]),
    )  # fmt: skip
    with atomic_directory(out, *folders) as made:
        write_json(made / "compare.json", both | {"compared": [_plain(asdict(r)) for r in found]})
        (made / "compare.html").write_bytes(page.encode("utf-8", "backslashreplace"))
    return found


def _plain(values: Any) -> Any:
    """Without infinities, which JSON has not."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    return None if isinstance(values, float) and math.isinf(values) else values


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.compare",
        description="Compare runs: curves, final scores paired by seed, differing settings.",
    )
    parser.add_argument(
        "runs", type=named_path, nargs="+", help="two or more; the first is the baseline"
    )
    parser.add_argument(
        "--out", type=named_path, default=Path("runs/compare"), help="(default: runs/compare)"
    )
    options = parser.parse_args(arguments)
    for row in write(options.runs, options.out):
        measure = MEASURES[row.measure]
        print(
            f"{row.arm}, {measure.title}: {number(row.found.difference)} "
            f"({row.found.interval}), {row.verdict}"
        )
    print(options.out / "compare.html", options.out / "compare.json", sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
