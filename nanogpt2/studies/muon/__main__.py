"""Record what AdamW and Muon leave in the matrices: how many directions they use."""

from __future__ import annotations

from pathlib import Path

from nanogpt2.lab.short_runs import record_short_runs, run_study
from nanogpt2.lab.small_run import small_runs
from nanogpt2.rungs import TUNED
from nanogpt2.studies.muon.changes import recipe_with
from nanogpt2.studies.muon.measures import output_stable_rank

WHAT = "The output projections after training by AdamW and by Muon, each at its searched rate"


def record_ranks() -> Path:
    """Three seeds of each; the record's path."""
    rate = TUNED["adamw"]["matrices_adamw.lr"]
    groups = {
        "AdamW": small_runs(recipe=recipe_with("adamw", rate), steps=240),
        "Muon": small_runs(recipe=recipe_with("muon"), steps=240),
    }
    ranks = {name: [output_stable_rank(run) for run in runs] for name, runs in groups.items()}
    results = {"stable_rank": ranks}
    return record_short_runs("muon", WHAT, [*groups["AdamW"], *groups["Muon"]], results)


if __name__ == "__main__":
    run_study("muon", WHAT, record_ranks)
