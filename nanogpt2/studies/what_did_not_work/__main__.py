"""The runs of the ideas that were left out: trained, or gone on with; beside the ladder's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import named_path
from nanogpt2.lab.records import results_folder
from nanogpt2.lab.trials import Protocol, Results, run_trials
from nanogpt2.studies.what_did_not_work.plan import trials
from nanogpt2.studies.what_did_not_work.summary import record_summary


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.studies.what_did_not_work",
        description="Try ideas again that the records left out; goes on where it ended.",
    )
    parser.add_argument("--data", type=named_path, help="folder of parquet shards of English text")
    parser.add_argument("--stage", choices=("all", "summary"), default="all")
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
    if at.stage == "all":
        run_trials(trials(at.seeds), Protocol(at.data), results, at.jobs, at.pause_file, tell)
    tell(str(record_summary(at.seeds, results.folder)))


def tell(sentence: str) -> None:
    """Print at once, for who reads a log."""
    print(sentence, flush=True)


if __name__ == "__main__":
    run_command(main)
