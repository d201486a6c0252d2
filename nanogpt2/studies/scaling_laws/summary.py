"""From the runs' files to one record: laws, bowls, the critical batch, the best rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.depth import REFERENCE_WIDTH, dial
from nanogpt2.errors import UserError
from nanogpt2.lab.records import record
from nanogpt2.lab.trials import Entry, Results, processors, require_no_less
from nanogpt2.studies.scaling_laws.fits import (
    DRAWS,
    Floats,
    Law,
    bootstrapped,
    critical_batch,
    exponent,
    fit_law,
    tokens_to_reach,
    valley,
)
from nanogpt2.studies.scaling_laws.plan import BATCH_DEPTHS, BUDGETS, RATES, WIDTHS, Plan

COUNTS: Mapping[str, tuple[str, ...]] = {
    "matrices and head": ("matrices", "lm_head"),
    "all parameters": ("total",),
    "matrices alone": ("matrices",),
}
"""way of counting N -> kinds of ``Dial.parameters``: the run's, everything, Kaplan's"""


@dataclass(frozen=True)
class Point:
    """One run of the grid."""

    depth: int
    budget: float
    N: Mapping[str, int]
    """by way of counting"""
    tokens: int
    bpb: float


def optima(points: Sequence[Point], way: str) -> list[tuple[float, float, float, float]]:
    """(FLOPs, N, D, bits per byte) of each budget's lowest point, where it is bracketed.

    The parabola is in log N; the tokens that go with its lowest point are read between neighbours.
    """
    found = []
    for budget in BUDGETS:
        at = sorted((p for p in points if p.budget == budget), key=lambda p: p.N[way])
        sizes = [math.log(point.N[way]) for point in at]
        try:
            best, bpb = valley(sizes, [point.bpb for point in at])
        except UserError:
            continue
        D = math.exp(np.interp(best, sizes, [math.log(point.tokens) for point in at]))
        found.append((budget, math.exp(best), D, bpb))
    return found


def growth(points: Sequence[Point], way: str) -> Floats:
    """Exponents of the best N and of the best D against FLOPs."""
    best = optima(points, way)
    C, N, D = ([each[i] for each in best] for i in range(3))
    return exponent(C, N), exponent(C, D)


def ratio(points: Sequence[Point], way: str) -> Floats:
    """Best tokens a parameter: geometric mean over budgets. UserError where none is bracketed."""
    if not (best := optima(points, way)):
        raise UserError("no budget's best size is bracketed; record more sizes")
    return (statistics.geometric_mean([D / N for _, N, D, _ in best]),)


def steadiest(points: Sequence[Point]) -> dict[str, int]:
    """Way of counting -> draws of the runs in which its best ratio moves least over the budgets.

    Of ``DRAWS`` draws with replacement those count in which all ways have two budgets' ratios.
    """
    random, found = np.random.default_rng(0), dict.fromkeys(COUNTS, 0)
    for _ in range(DRAWS):
        drawn = [points[i] for i in random.integers(0, len(points), len(points))]
        ratios = {way: [D / N for _, N, D, _ in optima(drawn, way)] for way in COUNTS}
        if all(len(each) > 1 for each in ratios.values()):
            found[min(ratios, key=lambda way: max(ratios[way]) / min(ratios[way]))] += 1
    return found


def law_of(points: Sequence[Point], way: str, near: Law | None = None) -> Law:
    """The law fitted to the points."""
    N, D, bpb = zip(*((p.N[way], p.tokens, p.bpb) for p in points), strict=True)
    return fit_law(N, D, bpb, near)


def laws(points: Sequence[Point]) -> dict[str, Any]:
    """Way of counting -> the law's numbers, the exponents of the best N and D, their ratio."""

    def numbers(of: Sequence[Point], way: str, near: Law) -> Floats:
        law = law_of(of, way, near)
        return law.E, law.alpha, law.beta, law.exponent

    found = {}
    for way in COUNTS:
        try:
            whole = law_of(points, way)
        except UserError:
            continue
        names = ("E", "alpha", "beta", "exponent")
        found[way] = {
            "law": asdict(whole),
            **bootstrapped(points, *names, numbers=partial(numbers, way=way, near=whole)),
            **bootstrapped(points, "N_growth", "D_growth", numbers=partial(growth, way=way)),
            **bootstrapped(points, "ratio", numbers=partial(ratio, way=way)),
            "optima": optima(points, way),
        }
    return found


def batches(found: Mapping[tuple[int, int, float], Sequence[Entry]]) -> dict[str, Any]:
    """Depth -> the loss that all batches reach, tokens to it by batch, the critical batch."""
    by_depth = {}
    for depth in BATCH_DEPTHS:
        curves: dict[int, list[tuple[float, float]]] = {}
        for (at, batch, _), entries in found.items():
            if at == depth and entries:
                mean = statistics.fmean(entry["bpb"] for entry in entries)
                curves.setdefault(batch, []).append((entries[0]["tokens"], mean))
        if not curves:
            continue
        # the least demanding: what even the batch that learns slowest from a token reaches
        wanted = max(min(bpb for _, bpb in curve) for curve in curves.values())
        needed = {
            batch: tokens
            for batch, curve in curves.items()
            if (tokens := tokens_to_reach(wanted, *zip(*curve, strict=True)))
        }
        by_depth[str(depth)] = {
            "wanted": wanted,
            "tokens": needed,
            **bootstrapped(
                list(needed.items()),
                "critical",
                numbers=lambda runs: critical_batch(*zip(*runs, strict=True))[:1],
            ),
        }
    return by_depth


def rates(found: Mapping[tuple[str, int, float], Sequence[Entry]]) -> dict[str, Any]:
    """Setting -> width -> its best rate as the optimizer sees it, and the exponent over widths.

    AdamW's rates are multiplied by (width / 768) ** -0.5 on the way there, Muon's are not.
    """
    by_setting: dict[str, Any] = {}
    for setting in RATES:
        best, tried = {}, {}
        for width in WIDTHS:
            scale = (width / REFERENCE_WIDTH) ** -0.5 if "adamw" in setting else 1.0
            ends = [
                (value * scale, statistics.fmean(entry["bpb"] for entry in entries))
                for (name, at, value), entries in found.items()
                if (name, at) == (setting, width) and entries
            ]
            tried[str(width)] = sorted(ends)
            try:
                x, _ = valley([math.log(rate) for rate, _ in ends], [bpb for _, bpb in ends], 1)
            except UserError:
                continue
            best[width] = math.exp(x)
        by_setting[setting] = {
            "tried": tried,
            "best": {str(width): rate for width, rate in best.items()},
            "exponent": exponent([*best], [*best.values()]) if len(best) > 1 else None,
        }
    return by_setting


def summarize(plan: Plan, folder: Path) -> dict[str, Any]:
    """The record's results, from the files in ``folder`` alone."""
    entries = Results(folder).all()
    if len({entry["data"] for entry in entries}) > 1:
        raise UserError(f"the runs in {folder} were trained on different texts; keep one's")
    ended = {entry["identity"]: entry for entry in entries if entry["bpb"] is not None}

    def known(part: str) -> dict[Any, list[Entry]]:
        return {
            where: [
                ended[identity]
                for seed in plan.seeds
                if (identity := plan.trial(part, where, seed).identity) in ended
            ]
            for where in plan.parts[part]
        }

    points = []
    for (depth, budget), at in known("grid").items():
        counts = dial(recipe=plan.grid[depth, budget]).parameters
        N = {way: sum(counts[kind] for kind in kinds) for way, kinds in COUNTS.items()}
        points += [Point(depth, budget, N, entry["tokens"], entry["bpb"]) for entry in at]
    done = {entry["identity"] for entry in entries}
    return {
        "done": sum(trial.identity in done for trial in plan.trials),
        "planned": len(plan.trials),
        "diverged": sum(trial.identity in done - ended.keys() for trial in plan.trials),
        "machines": sorted({entry["machine"] for entry in entries}),
        "grid": [asdict(point) for point in points],
        "laws": laws(points) if points else {},
        "steadiest": steadiest(points) if points else {},
        "batches": batches(known("batch")),
        "rates": rates(known("width")),
    }


def record_summary(plan: Plan, folder: Path) -> Path:
    """Write ``scaling_laws.json`` beside ``folder``; its path."""
    planned, results = {trial.identity for trial in plan.trials}, summarize(plan, folder)
    require_no_less("scaling_laws", folder.parent, results["done"])
    entries = [entry for entry in Results(folder).all() if entry["identity"] in planned]
    return record(
        "scaling_laws",
        command=f"python -m nanogpt2.studies.scaling_laws --data DIR --seeds "
        f"{' '.join(map(str, plan.seeds))}",
        configuration={"recipe": {**plan.base.to_dict(), "record": None}, "seeds": [*plan.seeds]},
        seed=0,
        tokens=sum(entry["tokens"] for entry in entries),
        seconds=sum(entry["cpu_seconds"] for entry in entries),
        curve=[],
        results=results,
        note=f"{results['done']} of {results['planned']} runs, {results['diverged']} of which "
        f"diverged; tokens and seconds (of a core) are "
        "those of all",
        device=processors(results["machines"]),
        folder=folder.parent,
    )
