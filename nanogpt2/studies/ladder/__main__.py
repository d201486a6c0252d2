"""The sweep, then the ladder: trained, or gone on with; what is done is not done again."""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.errors import run_command
from nanogpt2.lab.step_seconds import record_step_seconds
from nanogpt2.lab.study_command import study_arguments, tell
from nanogpt2.rungs import Ladder
from nanogpt2.studies.ladder.plan import Plan
from nanogpt2.studies.ladder.summary import record_summary
from nanogpt2.studies.ladder.sweep import UNTUNED, searched


def main(argv: Sequence[str] | None = None) -> None:
    what = "Measure what each technique is worth; goes on where it ended."
    # all: the sweep, the ladder with its rates, the summary; seconds: a step of each, timed in turn
    stages = ("all", "sweep", "seconds", "summary")
    at, results, run = study_arguments(
        "ladder", what, argv, folder="ladder", stages=stages, untrained=("seconds",)
    )
    while missing := (found := searched(results.all())).missing:
        if at.only or at.stage in ("summary", "seconds"):
            break
        run(missing)
    # some runs alone need no search: without one of their own they take the recorded one's rates
    ladder = Ladder() if found.missing else Ladder(found.tuned, UNTUNED)
    for name, settings in ladder.tuned.items():
        tell(f"{name}: {settings}")
    plan = Plan(ladder, at.seeds)
    if at.stage == "seconds":
        tell(str(record_step_seconds("ladder", plan.timed, results.folder.parent)))
    if at.stage == "all":
        run(plan.trials)
    if at.stage != "sweep":
        tell(str(record_summary(plan, results.folder)))


if __name__ == "__main__":
    run_command(main)
