"""Record learned against rotary positions, and what both windows read beyond the trained length."""

from __future__ import annotations

import argparse
from typing import Any

from nanogpt2.lab.changes import record_changes
from nanogpt2.lab.small_run import small_config, small_runs
from nanogpt2.studies.rotary_positions.changes import CHANGES
from nanogpt2.studies.rotary_positions.measures import reading_further


def _further(at: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Every layer with the full window: all of them meet distances that were never trained."""
    config = small_config(at.depth, window_pattern="L")
    runs = small_runs(config, at.seeds, steps=at.steps, device=at.device)
    return {"bpb_by_position": reading_further(runs)}, sum(run.seconds for run in runs)


if __name__ == "__main__":
    what = "Learned against rotary positions"
    record_changes("rotary_positions", CHANGES, {}, what=what, more=_further)
