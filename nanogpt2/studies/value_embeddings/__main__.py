"""Record value embeddings and residual scalars, on and off, and what a longer run has learned."""

from __future__ import annotations

import argparse
from typing import Any

from nanogpt2.lab.changes import record_changes
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_config, small_run
from nanogpt2.studies.value_embeddings.changes import CHANGES, WITHIN
from nanogpt2.studies.value_embeddings.measures import reading

STEPS = 960
"""of the run that is read out"""


def _reading(at: argparse.Namespace) -> tuple[dict[str, Any], float]:
    config = small_config(at.depth)
    run = small_run(config, seed=at.seeds[0], steps=at.reading_steps, device=at.device)
    return {"reading": reading(run, small_data(config.vocab_size))}, run.seconds


if __name__ == "__main__":
    what = "Value embeddings and residual scalars switched off; one longer run read out"
    record_changes(
        "value_embeddings", CHANGES, WITHIN, what=what, more=_reading, reading_steps=STEPS
    )
