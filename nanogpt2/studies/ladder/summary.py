"""From the trials' files to one record: pairs by seed, and what compute they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab.records import record
from nanogpt2.lab.step_seconds import recorded_seconds
from nanogpt2.lab.trials import (
    Entry,
    Results,
    Trial,
    diverged,
    ended,
    paired,
    processors,
    require_no_less,
)
from nanogpt2.reporting.statistics import compute_to_reach
from nanogpt2.rungs import TOP
from nanogpt2.studies.ladder.plan import NOISE_SEEDS, Pair, Plan
from nanogpt2.studies.ladder.sweep import searched

COMMAND = "python -m nanogpt2.studies.ladder"


@dataclass(frozen=True)
class Found:
    """What is recorded of a plan, looked up by what was run: other recipes are passed over."""

    plan: Plan
    entries: Sequence[Entry]
    seconds: Mapping[str, float]
    """of a step, by name of a trial; empty where they are not recorded"""

    def of(self, trial: Trial) -> list[Entry]:
        """A trial's entry on each machine, but for those that diverged."""
        return self._known.get(trial.identity, [])

    @cached_property
    def _known(self) -> dict[str, list[Entry]]:
        return ended(self.entries)

    def pairs(self, pair: Pair) -> list[tuple[Entry, Entry]]:
        """(with, without) of one technique, a seed each, both from one machine."""
        return [both for a, b in self._sides(pair) if (both := paired(self._known, a, b))]

    def diverged(self, pair: Pair) -> list[int]:
        """Seeds of which a run of the pair ended without a number."""
        return diverged(self.entries, self._sides(pair))

    def _sides(self, pair: Pair) -> list[tuple[Trial, Trial]]:
        return [
            (Trial("", pair.with_it, seed), Trial("", pair.without_it, seed))
            for seed in self.plan.seeds
        ]

    def compute(self, unit: str, seed: int, machine: str) -> Callable[[Entry], tuple[float, bool]]:
        """How many times its own compute the top would need to end where an entry ended.

        By the top's runs of that machine or, where it has not made all of them, of another: both
        sides of a ratio are read off the same.
        """
        curves = dict[str, list[tuple[float, float]]]()
        for trial in self.plan.reference(seed):
            for entry in self.of(trial):
                point = self.cost(unit, entry), entry["bpb"]
                curves.setdefault(entry["machine"], []).append(point)
        whole = max(curves, key=lambda of: (len(curves[of]), of == machine), default="")
        curve = curves.get(whole, [])
        if len(curve) < len(self.plan.reference(seed)):
            raise UserError(f"the top's curve of compute is not complete for seed {seed}")

        def worth(entry: Entry) -> tuple[float, bool]:
            needed, outside = compute_to_reach(entry["bpb"], curve)
            return needed / self.cost(unit, entry), outside

        return worth

    def cost(self, unit: str, entry: Entry) -> float:
        """What a run took, in FLOPs, or in seconds as they were timed in turn for all."""
        if unit == "flops":
            return float(entry[unit])
        if entry["identity"] not in self._a_step:
            raise UserError(f"a step of {entry['name']} is not timed; record --stage seconds anew")
        return float(entry["curve"][-1]["step"] * self._a_step[entry["identity"]])

    @cached_property
    def _a_step(self) -> dict[str, float]:
        """Identity -> seconds of a step: a run may have been made under another name."""
        found = {}
        for seed in self.plan.seeds:
            for trial in self.plan.timed:
                if trial.name in self.seconds:
                    found[replace(trial, seed=seed).identity] = self.seconds[trial.name]
            for trial in self.plan.reference(seed):
                found[trial.identity] = self.seconds[TOP]
        return found


def told(pair: Pair, pairs: Sequence[tuple[Entry, Entry]], found: Found) -> dict[str, Any]:
    """A technique's numbers by seed: bits per byte with it and without, ratios of compute; and
    the mean training loss of both by step.

    A ratio is over the top's own curve of compute: FLOPs (or seconds, timed in turn) that the top
    would need to end where the run with the technique ended, over what that run took; the same for
    the run without it; and the first over the second.
    """
    ratios: dict[str, Any] = {"flops": [], **({"seconds": []} if found.seconds else {})}
    outside = False
    for with_it, without_it in pairs:
        if pair.with_it.depth != found.plan.ladder.top.depth:
            break  # the curve of compute is that of the small top
        for unit, found_ratios in ratios.items():
            try:
                worth = found.compute(unit, with_it["seed"], with_it["machine"])
                (first, far), (second, further) = worth(with_it), worth(without_it)
            except UserError:  # the top's curve of this seed is not complete, or it was not timed
                continue
            found_ratios.append(first / second)
            outside |= far or further
    return {
        "title": pair.title,
        "seeds": [a["seed"] for a, _ in pairs],
        **{
            f"{packing}_{name}": [entry[packing] for entry in side]
            for packing in ("bpb", "bpb_stream")
            for name, side in zip(("with", "without"), zip(*pairs, strict=True), strict=False)
        },
        **ratios,
        "extrapolated": outside,
        "curve": {
            "step": [point["step"] for point in pairs[0][0]["curve"]],
            **{
                name: [_mean_loss(points) for points in zip(*curves, strict=True)]
                for name, curves in zip(
                    ("with", "without"),
                    ([entry["curve"] for entry in side] for side in zip(*pairs, strict=True)),
                    strict=True,
                )
            },
        },
    }


def _mean_loss(points: Sequence[Entry]) -> float:
    return round(fmean(point["loss"] for point in points), 4)


def summarize(plan: Plan, folder: Path) -> dict[str, Any]:
    """The record's results, from the files in ``folder`` alone."""
    entries = Results(folder).all()
    if len({entry["data"] for entry in entries}) > 1:
        raise UserError(f"the trials in {folder} were trained on different texts; keep one's")
    found = Found(plan, entries, recorded_seconds("ladder", folder.parent))
    done = {entry["identity"] for entry in entries}
    tops = [(seed, found.of(plan.top(seed))) for seed in sorted({*NOISE_SEEDS, *plan.seeds})]
    return {
        "done": sum(trial.identity in done for trial in plan.trials),
        "planned": len(plan.trials),
        "searched": sum(entry["name"].startswith("sweep-") for entry in entries),
        "machines": sorted({entry["machine"] for entry in entries}),
        "sweep": searched(entries).tried,
        "noise": _of_one_machine(tops),
        "repeated": [
            {
                "name": trial.name,
                "against": trial.against,
                "seed": trial.seed,
                "bpb": {entry["machine"]: entry["bpb"] for entry in same},
            }
            for trial in plan.trials
            if len(same := found.of(trial)) > 1
        ],
        "effects": {
            table: {
                pair.key: told(pair, sides, found) for pair in pairs if (sides := found.pairs(pair))
            }
            for table, pairs in plan.pairs.items()
        },
        "diverged": {
            table: {pair.key: lost for pair in pairs if (lost := found.diverged(pair))}
            for table, pairs in plan.pairs.items()
        },
    }


def _of_one_machine(runs: Iterable[tuple[int, Sequence[Entry]]]) -> dict[str, float]:
    """Seed -> bits per byte, from the machine that has most seeds: another's rounding is noise."""
    found = dict[str, dict[str, float]]()
    for seed, entries in runs:
        for entry in entries:
            found.setdefault(entry["machine"], {})[str(seed)] = entry["bpb"]
    return max(found.values(), key=len, default={})


def record_summary(plan: Plan, folder: Path) -> Path:
    """Write ``ladder.json`` beside ``folder``; its path."""
    planned, results = {trial.identity for trial in plan.trials}, summarize(plan, folder)
    # the folder holds what other studies change on the yardstick, too
    entries = [
        entry
        for entry in Results(folder).all()
        if entry["identity"] in planned or entry["name"].startswith("sweep-")
    ]
    require_no_less("ladder", folder.parent, results["done"])
    top = dial(recipe=plan.ladder.top)
    curves = [entry["curve"] for entry in entries if entry["identity"] == plan.top(0).identity]
    return record(
        "ladder",
        command=f"{COMMAND} --data DIR --seeds {' '.join(map(str, plan.seeds))}",
        configuration={
            "recipe": {**plan.ladder.top.to_dict(), "record": None},
            "tuned": plan.ladder.tuned,
            "seeds": list(plan.seeds),
        },
        seed=0,
        tokens=top.tokens,
        seconds=sum(entry["cpu_seconds"] for entry in entries),
        curve=curves[0] if curves else [],
        results=results,
        note=f"{results['done']} of {results['planned']} runs; tokens are those of one run, "
        "seconds those of all and of the search, of a core",
        device=processors(results["machines"]),
        folder=folder.parent,
    )
