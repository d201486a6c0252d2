"""What a step of each trial takes, in turn within one run: seconds that may be compared.

A trial's own seconds are of the hour that it ran in, and of what else the machine did then.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path

import torch

from nanogpt2.depth import dial
from nanogpt2.lab.records import record, recorded, results_folder
from nanogpt2.lab.study_command import tell
from nanogpt2.lab.timing import torch_threads
from nanogpt2.lab.trials import Trial
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.reporting.machine import processor_name
from nanogpt2.training.fit import fit

ROUNDS, STEPS = 5, 6


def step_seconds(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Name of a trial -> seconds of a core for a step, one for each of ``ROUNDS``.

    All take their turns, round after round, so that a busy moment hits all alike; the first round
    does not count.
    """
    with torch_threads(1):
        runs = {trial.name: _steps(trial) for trial in trials}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(ROUNDS + 1):
            for name, run in runs.items():
                taken[name].append(run())
            tell(f"round {number} of {ROUNDS}")
    return {name: values[1:] for name, values in taken.items()}


def _steps(trial: Trial) -> Callable[[], float]:
    made, within = dial(recipe=trial.recipe), trial.within or nullcontext
    rows, T = made.batch_tokens // made.model.sequence_len, made.model.sequence_len
    tokens = torch.randint(0, made.model.vocab_size, (rows, T + 1))
    with within():
        model = GPT(made.model)
        model.init_weights(0)
        optimizer = build_optimizer(model, trial.recipe, dtype=torch.float32)

    def run() -> float:
        with within():
            began = time.process_time()
            fit(model, optimizer, repeat((tokens[:, :-1], tokens[:, 1:])), STEPS, trial.recipe)
            return (time.process_time() - began) / STEPS

    return run


def record_step_seconds(key: str, trials: Sequence[Trial], folder: Path | None = None) -> Path:
    """Write ``KEY-seconds.json``, medians and extremes of each trial's name; its path."""
    began = time.perf_counter()
    found = step_seconds(trials)
    return record(
        f"{key}-seconds",
        command=f"python -m nanogpt2.studies.{key} --stage seconds",
        configuration={"rounds": ROUNDS, "steps": STEPS, "threads": 1, "precision": "fp32"},
        seed=0,
        tokens=0,
        seconds=time.perf_counter() - began,
        curve=[],
        results={
            "seconds": {name: statistics.median(values) for name, values in found.items()},
            "extremes": {name: [min(values), max(values)] for name, values in found.items()},
        },
        device=processor_name(),
        folder=folder,
        note="Seconds of a core that a step takes, each in turn within one run, medians of "
        f"{ROUNDS} rounds of {STEPS} steps; nothing is learned.",
    )


def recorded_seconds(key: str, folder: Path | None = None) -> dict[str, float]:
    """Name of a trial -> its recorded seconds of a step; empty where none are recorded."""
    name, folder = f"{key}-seconds", folder or results_folder()
    if not (folder / f"{name}.json").is_file():
        return {}
    found: dict[str, float] = recorded(name, folder).results["seconds"]
    return found
