"""Record a finished run for the book: its curve, scores and samples."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError, run_command
from nanogpt2.lab.records import record
from nanogpt2.reporting.run import load_run


def record_run(folder: Path, name: str = "") -> str:
    """Write a finished run's curve, scores and samples to ``book/results``; the record's path.

    ``name`` is the record's, speedrun-RECIPE where none is given.
    """
    run = load_run(folder)
    config, training, evaluation, curve = run.config, run.training, run.evaluation, run.metrics
    if not (curve and training and evaluation) or curve[-1]["step"] < training["steps"]:
        raise UserError(f"{folder} is not a finished run; run the command again, it goes on")
    every = max(1, len(curve) // 200)
    kept = [p for i, p in enumerate(curve) if i % every == 0 or "val_bpb" in p or p is curve[-1]]
    measured = ("tokens_per_second", "memory_bytes", "parameters")
    results: dict[str, Any] = {
        "val_bpb": evaluation["val_bpb"],
        "val_tokens": evaluation["tokens"],
        **{name: training[name] for name in measured},
        "samples": run.samples,
        "machine": config["machine"],
    }
    if found := run.core:
        told = ("core", "core_corrected", "protocol", "standard_error")
        results["core"] = {name: found[name] for name in told}
        results["core"]["tasks"] = {
            label: {name: task[name] for name in ("accuracy", "standard_error", "examples")}
            for label, task in found["tasks"].items()
        }
    machine = {name: config["machine"].get(name, "?") for name in ("cores", "started", "commit")}
    path = record(
        name or f"speedrun-{config['name']}",
        command=re.sub(r"(?<= )/\S+", "DIR", config["command"]),  # folders of that machine
        configuration={"recipe": config["recipe"], "settings": config["settings"]},
        seed=config["seed"],
        tokens=training["tokens"],
        seconds=training["seconds"],
        curve=kept,
        results=results,
        note="The whole command on {cores} cores, started at {started} from commit {commit}; the "
        "samples were not chosen.".format(**machine),
    )
    return str(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the record."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.studies.speedrun", description=__doc__
    )
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/laptop")
    parser.add_argument("--name", default="", help="of the record (default: speedrun-RECIPE)")
    at = parser.parse_args(argv)
    print(record_run(at.run, at.name))


if __name__ == "__main__":
    run_command(main)
