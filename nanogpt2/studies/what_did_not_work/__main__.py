"""The runs of the ideas that were left out: trained, or gone on with; beside the ladder's."""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.errors import run_command
from nanogpt2.lab.trials import study_arguments, tell
from nanogpt2.studies.what_did_not_work.plan import trials
from nanogpt2.studies.what_did_not_work.summary import record_summary


def main(argv: Sequence[str] | None = None) -> None:
    what = "Try ideas again that the records left out; goes on where it ended."
    at, results, run = study_arguments("what_did_not_work", what, argv, folder="ladder")
    if at.stage == "all":
        run(trials(at.seeds))
    tell(str(record_summary(at.seeds, results.folder)))


if __name__ == "__main__":
    run_command(main)
