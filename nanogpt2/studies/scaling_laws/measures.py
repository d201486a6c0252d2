"""What the chapter on scaling laws computes as it runs, and the rows of its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nanogpt2 import reported
from nanogpt2.depth import flops_per_token, scaling_parameters
from nanogpt2.errors import UserError
from nanogpt2.lab.small_run import SmallRun, small_config, small_run
from nanogpt2.studies.scaling_laws.fits import DRAWS, Law, critical_batch, fit_law
from nanogpt2.studies.scaling_laws.summary import Point, law_of

LIVE_SHAPES = ((1, 16), (1, 32), (2, 32), (2, 64), (3, 96))
"""depth and width of the page's own runs: so small that a wall stands on either side"""
ROWS = 8
"""of a step of the page's own runs"""
NOT_YET, UNBRACKETED = "not recorded yet", "not bracketed"


def printed_law(source: str) -> Law:
    """A law as others reported it, by the key of its source; N counts all parameters."""
    return Law(*reported.LAWS[source])


def live_runs(steps: int, seed: int = 0) -> list[tuple[int, int, SmallRun]]:
    """(N, tokens, run): five models with the FLOPs of ``steps`` steps of the book's small one.

    N counts matrices and head.
    """
    budget = steps * flops_per_token(small_config())
    found = []
    for depth, width in LIVE_SHAPES:
        heads = max(1, width // 32)
        config = small_config(
            depth, n_embd=width, n_head=heads, n_kv_head=heads, value_gate_channels=min(32, width)
        )
        run = small_run(config, steps=max(1, round(budget / flops_per_token(config))), seed=seed,
                        batch_size=ROWS, evaluate_every=10**6)  # fmt: skip
        found.append((scaling_parameters(config), run.tokens, run))
    return found


def unfinished(steps: int, seed: int = 0) -> tuple[float, float]:
    """Bits per byte of depth 2 after ``steps`` steps: of a run twice as long, and of one that ends.

    The longer run's rates have not begun to fall where it is looked at.
    """
    long, whole = (
        small_run(small_config(2), steps=n, seed=seed, batch_size=ROWS, evaluate_every=steps)
        for n in (2 * steps, steps)
    )
    (half,) = (point["bpb"] for point in long.curve if point["step"] == steps)
    return half, whole.bpb


def points_in(results: Mapping[str, Any]) -> list[Point]:
    """The grid of a record."""
    return [Point(**point) for point in results["grid"]]


def interval(
    estimate: Mapping[str, Any] | None, form: str = ".2f", missing: str = UNBRACKETED
) -> str:
    """An estimate of the record with its interval, or why there is none."""
    if estimate is None:
        return missing
    value, low, high = (estimate[end] for end in ("value", "low", "high"))
    if low is None:
        return f"{value:{form}} (no interval: too few runs)"
    said = f"{value:{form}} ({low:{form}} to {'no end' if high is None else format(high, form)})"
    draws = estimate["draws"]
    return said if draws == DRAWS else f"{said}, from {draws} of {DRAWS} draws"


def rows_or_none(rows: Sequence[Sequence[Any]], columns: int) -> list[list[Any]]:
    """Rows for a table; one that says so where there are none."""
    return [list(row) for row in rows] or [[NOT_YET, *[""] * (columns - 1)]]


def valley_rows(results: Mapping[str, Any], way: str) -> list[list[Any]]:
    """Rows: FLOPs, best N, its tokens, tokens a parameter, bits per byte; by one count of N."""
    optima = results["laws"].get(way, {}).get("optima", [])
    found = {C: [N, D, f"{D / N:.1f}", f"{bpb:.4f}"] for C, N, D, bpb in optima}
    none = [UNBRACKETED, "", "", ""]
    budgets = sorted({point.budget for point in points_in(results)})
    return rows_or_none([[f"{C:.2g}", *found.get(C, none)] for C in budgets], 5)


def count_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows: way of counting N, exponents of best N and D by parabolas, of N by the law, ratio."""
    rows = [
        [way, *(interval(told[name]) for name in ("N_growth", "D_growth", "exponent")),
         interval(told["ratio"], ".1f")]
        for way, told in results["laws"].items()
    ]  # fmt: skip
    return rows_or_none(rows, 5)


def held_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows: who reported it and how, what N counts, best N ~ C^a, and ours by the same count."""
    rows, missing = [], UNBRACKETED if results["grid"] else NOT_YET
    for g in reported.GROWTHS:
        told = results["laws"].get(g.counts, {}).get("N_growth")
        ours, inside = interval(told, missing=missing), ""
        if told and told["low"] is not None:
            inside = "yes" if told["low"] <= g.n <= told["high"] else "no"
        rows.append([f"{reported.SOURCES[g.key]}: {g.how}", g.counts, f"{g.n:g}", ours, inside])
    return rows


def waste_rows(results: Mapping[str, Any], offs: Sequence[float]) -> list[list[Any]]:
    """Rows: way of counting, and for each size that is so far off the compute it needs."""
    rows = [
        [way, *(f"{Law(**told['law']).compute_factor(off):.2f}" for off in offs)]
        for way, told in results["laws"].items()
    ]
    return rows_or_none(rows, 1 + len(offs))


def ratio_spread(results: Mapping[str, Any]) -> dict[str, float]:
    """Way of counting -> largest over smallest best ratio, over the budgets that have one."""
    found = {}
    for way, told in results["laws"].items():
        ratios = [D / N for _, N, D, _ in told["optima"]]
        if len(ratios) > 1:
            found[way] = max(ratios) / min(ratios)
    return found


def reported_rows() -> list[list[Any]]:
    """Rows: the reported valleys of run 1's model: FLOPs, ratio, N and tokens by C = 6 N D."""
    return [
        [f"{C:.3g}", at.ratio, math.sqrt(C / 6 / at.ratio), math.sqrt(C / 6 * at.ratio), at.bpb]
        for C, at in reported.VALLEYS.items()
    ]


def foretold(points: Sequence[Point], way: str = "matrices and head") -> list[list[Any]]:
    """Rows: depth, measured and foretold bits per byte at the largest budget, and the difference.

    Foretold by the law of all smaller budgets; none where those are too few.
    """
    largest = max((point.budget for point in points), default=0.0)
    try:
        law = law_of([point for point in points if point.budget < largest], way)
    except (UserError, ValueError):
        return []
    last = [point for point in points if point.budget == largest]
    return [
        [f"depth {at.depth}", at.bpb, float(found := law(at.N[way], at.tokens)), found - at.bpb]
        for at in sorted(last, key=lambda point: point.depth)
    ]


def extrapolated_rows(
    law: Law, noise: float, spans: Sequence[float], far: float, draws: int = 20
) -> list[list[Any]]:
    """Rows: how far off the best the sizes went, range of E, of the exponent, and at ``far`` FLOPs.

    Over ``draws`` sets of runs of a known law with ``noise`` in each end: six sizes at each of the
    reported budgets. The last column is the largest best size over the smallest.
    """
    rows = []
    for span in spans:
        random, fits = np.random.default_rng(0), []
        sizes = [law.best(C)[0] * np.geomspace(1 / span, span, 6) for C in reported.VALLEYS]
        N = np.concatenate(sizes)
        D = np.concatenate([C / 6 / at for C, at in zip(reported.VALLEYS, sizes, strict=True)])
        for _ in range(draws):
            fits.append(fit_law([*N], [*D], law(N, D) + random.normal(0, noise, len(N)), law))
        E, a, best = zip(*((f.E, f.exponent, f.best(far)[0]) for f in fits), strict=True)
        rows.append([f"{span:g} times", f"{min(E):.2f} to {max(E):.2f}",
                     f"{min(a):.2f} to {max(a):.2f}", f"{max(best) / min(best):.1f}"])  # fmt: skip
    return rows


def batch_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows: depth, the loss that all reach, critical batch, fewest tokens, batches measured."""
    rows = []
    for depth, told in results["batches"].items():
        needed = {int(batch): tokens for batch, tokens in told["tokens"].items()}
        fewest = ""
        if len(needed) > 1 and told["critical"]:
            fewest = f"{critical_batch([*needed], [*needed.values()])[1]:,.0f}"
        critical = interval(told["critical"], ",.0f", "out of range")
        rows.append([f"depth {depth}", f"{told['wanted']:.3f}", critical, fewest, len(needed)])
    return rows_or_none(rows, 5)


def rate_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows: setting, its best value at each width (as the optimizer sees it), exponent of width."""
    rows = []
    for setting, told in results["rates"].items():
        if not told["best"]:
            continue
        best = [f"{told['best'][w]:.4f}" if w in told["best"] else UNBRACKETED
                for w in told["tried"]]  # fmt: skip
        power = told["exponent"]
        said = UNBRACKETED if power is None else f"{round(power, 2) + 0:+.2f}"  # never -0.00
        rows.append([setting, *best, said])
    return rows_or_none(rows, 5)


def shrinking(effects: Mapping[int, float]) -> tuple[float, float]:
    """(k, size at depth 1) of an effect whose size goes as depth^k, by least squares of logs."""
    k, start = np.polyfit(np.log([*effects]), np.log(np.abs([*effects.values()])), 1)
    return float(k), float(np.exp(start))
