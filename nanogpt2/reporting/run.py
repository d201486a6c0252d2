"""A run's folder, read: what each stage left there, with absent parts left out."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError
from nanogpt2.files import read_json, read_lines
from nanogpt2.journal import Journal
from nanogpt2.run import WARMUP_STEPS

Point = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """The files of one run as plain values; parts of stages that have not run are empty."""

    folder: Path
    config: dict[str, Any]
    """``config.json``: command, recipe, dial, data, machine"""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """one record per logged step, in order; a step repeated after a resume counts once"""
    length: dict[str, Any] = field(default_factory=dict)
    """where the clock set it: under ``length`` the steps, those of the recipe, and why"""
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    core: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    """wall clock of each stage, in seconds"""

    @property
    def timed(self) -> float | None:
        """Seconds of training as the leaderboard counts them; None of ten steps or less."""
        seconds = self.points("seconds")
        first = [value for step, value in seconds if step <= WARMUP_STEPS]
        if not first or len(first) == len(seconds):
            return None
        return seconds[-1][1] - first[-1]

    def points(self, name: str) -> list[Point]:
        """(step, value) of every record that has ``name`` as a number."""
        return [
            (record["step"], float(record[name]))
            for record in self.metrics
            if isinstance(record.get(name), (int, float))
        ]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl`` by step; the last of equals wins.

    A run that was killed may leave half a line behind, and repeats the steps since its checkpoint.
    """
    records: dict[int, dict[str, Any]] = {}
    for record in read_lines(path):
        if isinstance(record.get("step"), int):
            records[record["step"]] = {**records.get(record["step"], {}), **record}
    return [records[step] for step in sorted(records)]


def weights_of(folder: Path) -> str | None:
    """SHA-256 of the weights with which the run in ``folder`` ended; None where they are gone."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        ended = json.loads((folder / "training.json").read_text(encoding="utf-8"))["checkpoint"]
        # as nanogpt2.training.checkpoint names it, which needs torch
        marker = json.loads((folder / ended / "COMPLETE").read_text(encoding="utf-8"))
        return str(marker["files"]["model.safetensors"]["sha256"])
    return None


def load_run(folder: Path | str) -> Run:
    """Read the run in ``folder``; UserError when it is not the folder of a run."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no run (there is no config.json in it); "
            "give a folder that nanogpt2.speedrun wrote, such as runs/laptop"
        )

    def part(name: str, empty: Any) -> Any:
        path = folder / name
        return read_json(path, "delete it and run the speedrun again") if path.is_file() else empty

    config = part("config.json", {})
    if not isinstance(config, dict) or "recipe" not in config:  # many programs write a config.json
        raise UserError(
            f"{folder}/config.json is not that of a run; "
            "give a folder that nanogpt2.speedrun wrote, such as runs/laptop"
        )
    core, weights = part("core.json", {}), weights_of(folder)
    if weights and core.get("weights", weights) != weights:  # of a model that was here before
        core = {}
    return Run(
        folder=folder,
        config=config,
        metrics=read_metrics(folder / "metrics.jsonl"),
        length=part("length.json", {}),
        training=part("training.json", {}),
        evaluation=part("evaluation.json", {}),
        core=core,
        samples=part("samples.json", []),
        stages=Journal(folder).seconds(),
    )
