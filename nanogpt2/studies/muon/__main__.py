"""Tune AdamW and Muon by rate, train each at its best, then Muon with parts changed: a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanogpt2.errors import run_command
from nanogpt2.lab.changes import asked_for, record_groups
from nanogpt2.lab.small_run import SmallRun, small_config, small_runs
from nanogpt2.studies.muon.changes import no_variance_reduction, recipe_with
from nanogpt2.studies.muon.measures import output_spectrum, output_stable_rank

RATES = {"adamw": (0.003, 0.006, 0.012, 0.024), "muon": (0.02, 0.04, 0.08, 0.16)}
WHAT = (
    "AdamW against Muon for the matrices, each at the best of four rates; then Muon with one part "
    "changed"
)


def record_comparison(argv: Sequence[str] | None = None) -> Path:
    """The record's path; each rate of the sweep has one run, of the first seed."""
    at, command = asked_for("muon", WHAT, argv)
    config = small_config(at.depth)
    settings: dict[str, Any] = {"steps": at.steps, "device": at.device}

    def trained(
        kind: str, rate: float, over: Sequence[int] = at.seeds, within: Any = None, **muon: Any
    ) -> list[SmallRun]:
        recipe = recipe_with(kind, rate, **muon)
        return small_runs(config, over, recipe=recipe, within=within, **settings)

    sweep = {
        kind: {rate: trained(kind, rate, at.seeds[:1])[0].bpb for rate in rates}
        for kind, rates in RATES.items()
    }
    best = {kind: min(found, key=found.__getitem__) for kind, found in sweep.items()}
    rate = best["muon"]
    groups = {
        "Muon": trained("muon", rate),
        "AdamW": trained("adamw", best["adamw"]),
        "Muon without NorMuon": trained("muon", rate, within=no_variance_reduction),
        "Muon with MuonEq": trained("muon", rate, equalize_rows=True),
        "Muon with Muon+": trained("muon", rate, fix_norm=True),
    }
    two = {name: groups[name] for name in ("AdamW", "Muon")}
    return record_groups(
        f"muon-depth{at.depth}",
        command,
        groups,
        what=WHAT,
        configuration={"rates": RATES},
        results={
            "sweep_bpb": {k: {f"{r:g}": b for r, b in v.items()} for k, v in sweep.items()},
            "best_rate": best,
            "stable_rank": {n: [output_stable_rank(r) for r in runs] for n, runs in two.items()},
            "spectrum": {
                name: [round(v, 6) for v in output_spectrum(runs).tolist()]
                for name, runs in two.items()
            },
        },
    )


if __name__ == "__main__":
    run_command(lambda: print(record_comparison()))
