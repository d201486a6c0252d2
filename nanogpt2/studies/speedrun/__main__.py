"""Record a finished run for the book: its curve, scores and samples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import read_json
from nanogpt2.lab.records import record
from nanogpt2.studies.speedrun.rehearsals import metrics


def record_run(run: Path) -> str:
    """Write a finished run's curve, scores and samples to ``book/results``; the record's path."""
    config, evaluation = read_json(run / "config.json"), read_json(run / "evaluation.json")
    curve, training = metrics(run), read_json(run / "training.json")
    if not curve or curve[-1]["step"] < training["steps"]:
        raise UserError(f"{run} is not a finished run; run the command again, it goes on")
    every = max(1, len(curve) // 200)
    kept = [p for i, p in enumerate(curve) if i % every == 0 or "val_bpb" in p or p is curve[-1]]
    results: dict[str, Any] = {
        "val_bpb": evaluation["val_bpb"],
        "val_tokens": evaluation["tokens"],
        "tokens_per_second": training["tokens_per_second"],
        "memory_bytes": training["memory_bytes"],
        "parameters": training["parameters"],
        "samples": read_json(run / "samples.json"),
        "machine": config["machine"],
    }
    core = run / "core.json"
    if core.is_file():
        found = read_json(core)
        results["core"] = {name: found[name] for name in ("core", "core_corrected", "protocol")}
        results["core"]["standard_error"] = found["standard_error"]
        results["core"]["tasks"] = {
            label: {name: task[name] for name in ("accuracy", "standard_error", "examples")}
            for label, task in found["tasks"].items()
        }
    path = record(
        f"speedrun-{config['name']}",
        command=config["command"],
        configuration={"recipe": config["recipe"], "settings": config["settings"]},
        seed=config["seed"],
        tokens=training["tokens"],
        seconds=training["seconds"],
        curve=kept,
        results=results,
        note=f"The whole command on {config['machine'].get('cores', '?')} cores, started at "
        f"{config['machine'].get('started', '?')} from commit "
        f"{config['machine'].get('commit', '?')}; the samples were not chosen.",
    )
    return str(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the record."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.studies.speedrun", description=__doc__
    )
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/laptop")
    print(record_run(parser.parse_args(argv).run))


if __name__ == "__main__":
    run_command(main)
