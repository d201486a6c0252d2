"""Record what models read beyond the length that they were trained at."""

from __future__ import annotations

from pathlib import Path

from nanogpt2.lab.short_runs import record_short_runs, run_study
from nanogpt2.lab.small_run import small_config, small_runs
from nanogpt2.studies.rotary_positions.measures import reading_further

WHAT = "Rows read that are four times as long as those of the training, every window full"


def record_further() -> Path:
    """Every layer has the full window, so that all of them meet distances never trained."""
    runs = small_runs(small_config(window_pattern="L"), steps=240)
    results = {"bpb_by_position": reading_further(runs)}
    return record_short_runs("rotary_positions", WHAT, runs, results)


if __name__ == "__main__":
    run_study("rotary_positions", WHAT, record_further)
