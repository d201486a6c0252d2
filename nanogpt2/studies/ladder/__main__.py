"""The sweep, then the ladder: trained, or gone on with; what is done is not done again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import named_path
from nanogpt2.lab.records import results_folder
from nanogpt2.lab.trials import Protocol, Results, Trial, run_trials
from nanogpt2.rungs import Ladder
from nanogpt2.studies.ladder.plan import Plan
from nanogpt2.studies.ladder.summary import record_summary
from nanogpt2.studies.ladder.sweep import UNTUNED, searched


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.studies.ladder",
        description="Measure what each technique is worth; goes on where it ended.",
    )
    parser.add_argument("--data", type=named_path, help="folder of parquet shards of English text")
    parser.add_argument(
        "--stage",
        choices=("all", "sweep", "summary"),
        default="all",
        help="all: the sweep, then the ladder with the rates it found, then the summary",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument("--out", type=named_path, help="book/results/ladder by default")
    parser.add_argument("--pause-file", type=Path, help="no run begins while this file exists")
    at = parser.parse_args(argv)
    if at.data is None and at.stage != "summary":
        raise UserError(
            "there is no text to train on; give a folder of parquet shards (--data DIR)"
        )
    results = Results(at.out or results_folder() / "ladder")
    results.folder.mkdir(parents=True, exist_ok=True)

    def run(trials: Sequence[Trial]) -> None:
        run_trials(trials, Protocol(at.data), results, at.jobs, at.pause_file, tell)

    while missing := (found := searched(results.all())).missing:
        if at.stage == "summary":
            break
        run(missing)
    for name, settings in found.tuned.items():
        tell(f"{name}: {settings}")
    plan = Plan(Ladder(found.tuned, UNTUNED), at.seeds)
    if at.stage == "all":
        run(plan.trials)
    if at.stage != "sweep":
        tell(str(record_summary(plan, results.folder)))


def tell(sentence: str) -> None:
    """Print at once, for who reads a log."""
    print(sentence, flush=True)


if __name__ == "__main__":
    run_command(main)
