"""Tune AdamW and Muon by rate, train each at its best, then Muon with parts changed: a record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanogpt2.errors import run_command
from nanogpt2.lab.changes import record_groups
from nanogpt2.lab.small_run import SmallRun, compare, small_run
from nanogpt2.studies.muon.changes import no_variance_reduction, recipe_with
from nanogpt2.studies.muon.measures import output_spectrum, output_stable_rank

RATES = {"adamw": (0.003, 0.006, 0.012, 0.024), "muon": (0.02, 0.04, 0.08, 0.16)}


def record_comparison(steps: int = 240, seeds: Sequence[int] = (0, 1, 2)) -> Path:
    """The record's path; each rate of the sweep has one run, of the first seed."""

    def trained(kind: str, rate: float, over: Sequence[int], **extra: Any) -> list[SmallRun]:
        within = extra.pop("within", None)
        settings: dict[str, Any] = {"recipe": recipe_with(kind, rate, **extra), "within": within}
        settings |= {"steps": steps, "evaluate_every": steps // 12}
        return [small_run(seed=seed, **settings) for seed in over]

    sweep = {
        kind: {rate: trained(kind, rate, seeds[:1])[0].bpb for rate in rates}
        for kind, rates in RATES.items()
    }
    best = {kind: min(found, key=found.__getitem__) for kind, found in sweep.items()}
    rate = best["muon"]
    groups = {
        "Muon": trained("muon", rate, seeds),
        "AdamW": trained("adamw", best["adamw"], seeds),
        "Muon without NorMuon": trained("muon", rate, seeds, within=no_variance_reduction),
        "Muon with MuonEq": trained("muon", rate, seeds, equalize_rows=True),
        "Muon with Muon+": trained("muon", rate, seeds, fix_norm=True),
    }
    ends = {name: [run.bpb for run in runs] for name, runs in groups.items()}
    two = {name: groups[name] for name in ("AdamW", "Muon")}
    return record_groups(
        "muon-depth4",
        f"python -m nanogpt2.studies.muon --steps {steps} --seeds {' '.join(map(str, seeds))}",
        groups,
        what="AdamW against Muon for the matrices, each at the best of four rates; then Muon with "
        "one part changed",
        configuration={"rates": RATES},
        results={
            "sweep_bpb": {k: {f"{r:g}": b for r, b in v.items()} for k, v in sweep.items()},
            "best_rate": best,
            "against_muon": {
                name: str(compare(found, ends["Muon"]))
                for name, found in ends.items()
                if name != "Muon"
            },
            "stable_rank": {n: [output_stable_rank(r) for r in runs] for n, runs in two.items()},
            "spectrum": {
                name: [round(v, 6) for v in output_spectrum(runs).tolist()]
                for name, runs in two.items()
            },
        },
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m nanogpt2.studies.muon", description=__doc__)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    at = parser.parse_args()
    print(record_comparison(at.steps, at.seeds))


if __name__ == "__main__":
    run_command(main)
