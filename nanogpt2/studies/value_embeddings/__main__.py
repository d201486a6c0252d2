"""Other value embeddings on the yardstick; ``--stage reading``: what trained tables say."""

from __future__ import annotations

from pathlib import Path

from nanogpt2.errors import run_command
from nanogpt2.lab.short_runs import record_short_runs
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_run
from nanogpt2.lab.variations import record_variations
from nanogpt2.studies.value_embeddings.changes import VARIATIONS
from nanogpt2.studies.value_embeddings.measures import reading

WHAT = "Train the yardstick with other value embeddings; goes on where it ended."
STEPS = 960
"""of the run that is read out: long enough for the rows of common tokens to be learned"""


def record_reading(folder: Path) -> Path:
    """One model's tables, gates and scalars, read out; the record's path."""
    run = small_run(steps=STEPS)
    results = {"reading": reading(run, small_data(run.config.vocab_size))}
    what, options = "One run, longer than the live ones, read out", " --stage reading"
    return record_short_runs("value_embeddings", what, [run], results, options, folder)


if __name__ == "__main__":
    run_command(
        lambda: record_variations("value_embeddings", WHAT, VARIATIONS, reading=record_reading)
    )
