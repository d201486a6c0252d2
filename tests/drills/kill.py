"""Kill a real run with SIGKILL at random moments; show that what comes out is the unbroken run.

``python -m tests.drills.kill --kills 100 --ranks 1``: a run is started, killed after a random time,
started again, until it ends; then its metrics and final tensors are compared, bit by bit, with
those of a run that nothing happened to; then the next run, until the kills are used up. With
several ranks one of them is killed, and the others must end by themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError, run_command
from nanogpt2.training.checkpoint import PARTIAL, list_checkpoints, step_of
from tests.drills.tiny_run import TinyData, differences, prepare, start

PATIENCE = 60.0
"""seconds after which a process counts as hanging"""


@dataclass
class Figures:
    """What happened."""

    kills: int = 0
    runs: int = 0
    """that came to their end, between the kills"""
    kills_while_saving: int = 0
    """kills that left an unfinished checkpoint behind"""
    kills_before_a_checkpoint: int = 0
    continued_from: list[int] = field(default_factory=list)
    """steps of the checkpoints that were there after each kill"""
    different: list[str] = field(default_factory=list)
    """what differed from the unbroken run: nothing, if all is well"""
    slowest_end_of_others: float = 0.0
    """seconds from a rank's kill to the end of the last other rank"""


def measure(
    kills: int = 100, world_size: int = 1, seed: int = 0, folder: Path | None = None
) -> Figures:
    """Kill ``kills`` times and compare every finished run with the unbroken one."""
    generator, figures = random.Random(seed), Figures()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        data = prepare(work)
        reference, duration = work / "unbroken", 0.0
        for run in (reference, work / "again"):  # the first one also starts the server of processes
            began = time.monotonic()
            wait_for(start(data.settings(run), world_size))
            duration = time.monotonic() - began
            if not (run / "training.json").is_file():
                raise UserError(f"the unbroken run failed: {(run / 'log.txt').read_text()}")
        figures.different += differences(work / "again", reference)
        while figures.kills < kills:
            _one_run(data, work / "run", world_size, duration, generator, figures, kills)
            figures.runs += 1
            figures.different += differences(work / "run", reference)
            shutil.rmtree(work / "run")
    return figures


def _one_run(
    data: TinyData,
    run: Path,
    world_size: int,
    duration: float,
    generator: random.Random,
    figures: Figures,
    kills: int,
) -> None:
    """Start and kill until the run has ended by itself."""
    while True:
        ranks = start(data.settings(run), world_size)
        wait = generator.uniform(0, duration) if figures.kills < kills else PATIENCE
        victim = generator.choice(ranks)
        victim.join(wait)
        if victim.exitcode is not None:
            wait_for(ranks)
            if any(rank.exitcode for rank in ranks):
                raise AssertionError(f"the run failed: {(run / 'log.txt').read_text()}")
            return
        victim.kill()
        killed = time.monotonic()
        victim.join()
        wait_for(ranks)
        figures.kills += 1
        figures.slowest_end_of_others = max(
            figures.slowest_end_of_others, time.monotonic() - killed
        )
        checkpoints = list_checkpoints(run)
        figures.continued_from.append(step_of(checkpoints[0]) if checkpoints else 0)
        figures.kills_before_a_checkpoint += not checkpoints
        figures.kills_while_saving += any((run / "checkpoints").glob(f"*{PARTIAL}"))


def wait_for(ranks: list[Any]) -> None:
    """Wait for all to end; one that does not is an error, and is killed."""
    deadline = time.monotonic() + PATIENCE
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))
        if rank.exitcode is None:
            for other in ranks:
                other.kill()
            raise AssertionError(f"a rank did not end within {PATIENCE:.0f} s")


def main() -> int:
    """The command; exit code 1 if anything differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="(default 100)")
    parser.add_argument("--ranks", type=int, default=1, help="processes of the run (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(options.kills, options.ranks, options.seed)
    print(json.dumps(asdict(figures)))
    return int(bool(figures.different))


if __name__ == "__main__":
    run_command(main)
