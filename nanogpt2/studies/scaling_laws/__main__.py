"""The runs of the scaling record: trained, or gone on with; what is done is not done again."""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.errors import run_command
from nanogpt2.lab.study_command import study_arguments, tell
from nanogpt2.studies.scaling_laws.plan import CHARACTERS, Plan
from nanogpt2.studies.scaling_laws.summary import record_summary


def main(argv: Sequence[str] | None = None) -> None:
    what = "Train small models of many sizes and lengths, and fit laws to their ends."
    at, results, run = study_arguments(
        "scaling_laws", what, argv, folder="scaling_laws", seeds=(0,), characters=CHARACTERS
    )
    plan = Plan(at.seeds)
    if at.stage == "all":
        run(plan.trials)
    tell(str(record_summary(plan, results.folder)))


if __name__ == "__main__":
    run_command(main)
