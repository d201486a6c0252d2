"""The runs of the scaling record: trained, or gone on with; what is done is not done again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import named_path
from nanogpt2.lab.records import results_folder
from nanogpt2.lab.trials import Protocol, Results, run_trials
from nanogpt2.studies.scaling_laws.plan import CHARACTERS, Plan
from nanogpt2.studies.scaling_laws.summary import record_summary


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.studies.scaling_laws",
        description="Train small models of many sizes and lengths, and fit laws to their ends.",
    )
    parser.add_argument("--data", type=named_path, help="folder of parquet shards of English text")
    parser.add_argument("--stage", choices=("all", "summary"), default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument("--out", type=named_path, help="book/results/scaling_laws by default")
    parser.add_argument("--pause-file", type=Path, help="no run begins while this file exists")
    at = parser.parse_args(argv)
    if at.data is None and at.stage != "summary":
        raise UserError(
            "there is no text to train on; give a folder of parquet shards (--data DIR)"
        )
    plan, results = Plan(at.seeds), Results(at.out or results_folder() / "scaling_laws")
    results.folder.mkdir(parents=True, exist_ok=True)
    if at.stage == "all":
        tell = partial(print, flush=True)
        run_trials(
            plan.trials, Protocol(at.data, CHARACTERS), results, at.jobs, at.pause_file, tell
        )
    print(record_summary(plan, results.folder))


if __name__ == "__main__":
    run_command(main)
