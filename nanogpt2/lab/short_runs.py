"""Records of short runs of the chapters' small model: how a part works, not what it is worth."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nanogpt2.errors import run_command
from nanogpt2.lab.records import record
from nanogpt2.lab.small_run import SmallRun


def record_short_runs(
    key: str,
    what: str,
    runs: Sequence[SmallRun],
    results: Mapping[str, Any],
    options: str = "",
    folder: Path | None = None,
) -> Path:
    """Write ``results`` of ``runs``, alike but for seed and recipe, as ``KEY-depthN``; its path.

    ``folder``: ``book/results`` by default.

    ``options`` are those of ``python -m nanogpt2.studies.KEY`` that repeat it.
    """
    first, config = runs[0], runs[0].config
    return record(
        f"{key}-depth{config.n_layer}",
        command=f"python -m nanogpt2.studies.{key}{options}",
        configuration={
            "config": config.to_dict(),
            "recipe": {**first.recipe.to_dict(), "record": None},
            "steps": first.steps,
            "batch_size": first.batch_size,
            "seeds": sorted({run.seed for run in runs}),
        },
        seed=first.seed,
        tokens=first.tokens,
        seconds=sum(run.seconds for run in runs),
        curve=[],
        results=results,
        note=f"{what}: {config.n_layer} layers, {config.n_embd} wide, heads of {config.head_dim}, "
        f"rows of {config.sequence_len} tokens of the embedded corpus; tokens are those of one "
        "run, seconds those of all.",
        folder=folder,
    )


def run_study(key: str, what: str, make: Callable[[], Path]) -> NoReturn:
    """``python -m nanogpt2.studies.KEY``, which has no options: make its record, print its path."""
    parser = argparse.ArgumentParser(prog=f"python -m nanogpt2.studies.{key}", description=what)
    parser.parse_args()
    run_command(lambda: print(make()))
