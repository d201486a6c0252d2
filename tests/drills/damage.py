"""Damage a run's disk in every way it happens; show that nothing broken is ever taken for whole.

``python -m tests.drills.damage --rounds 100``: before it is continued, an unfinished run has files
of its newest checkpoints changed by a bit, cut short, emptied, removed, lengthened or overwritten;
or it is run on a disk that takes no more than so many bytes. Each time it must end as the run that
nothing happened to, bit by bit, once there is room again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nanogpt2.errors import UserError, run_command
from nanogpt2.training.checkpoint import list_checkpoints, verify
from tests.drills.kill import wait_for
from tests.drills.tiny_run import TinyData, differences, prepare, start


def flip_bit(content: bytearray, generator: random.Random) -> bytes:
    """One bit, anywhere."""
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return bytes(content)


def cut_short(content: bytearray, generator: random.Random) -> bytes:
    """A file whose end never reached the disk."""
    return bytes(content[: generator.randrange(len(content))])


def lengthen(content: bytearray, generator: random.Random) -> bytes:
    """A few bytes too many."""
    return bytes(content) + generator.randbytes(generator.randint(1, 100))


def overwrite(content: bytearray, generator: random.Random) -> bytes:
    """A block of zeros, as a file system leaves after a power cut."""
    begin = generator.randrange(len(content))
    stop = min(len(content), begin + generator.randint(1, 4096))
    zeros = bytes(stop - begin)
    if content[begin:stop] == zeros:
        zeros = b"\x01" * (stop - begin)
    content[begin:stop] = zeros
    return bytes(content)


def remove(content: bytearray, generator: random.Random) -> None:
    """A file that is gone."""


DAMAGES: tuple[Callable[[bytearray, random.Random], bytes | None], ...] = (
    flip_bit,
    cut_short,
    lengthen,
    overwrite,
    remove,
)


@dataclass
class Figures:
    """What happened."""

    rounds: Counter[str] = field(default_factory=Counter)
    """by kind of damage"""
    passed_over: int = 0
    """damaged checkpoints that were recognized"""
    harmless: int = 0
    """changes that a checkpoint survives, such as one of a blank in its marker"""
    exit_codes: Counter[int] = field(default_factory=Counter)
    """of the runs on a full disk"""
    different: list[str] = field(default_factory=list)
    """what differed from the unbroken run in the end: nothing, if all is well"""


def damage_one(folder: Path, generator: random.Random) -> str:
    """Damage one file of a checkpoint; returns how."""
    path = generator.choice(sorted(p for p in folder.iterdir() if p.is_file()))
    damage = generator.choice(DAMAGES)
    changed = damage(bytearray(path.read_bytes()), generator)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    return damage.__name__


def measure(rounds: int = 100, seed: int = 0) -> Figures:
    """``rounds`` damaged runs; every fourth on a full disk."""
    generator, figures = random.Random(seed), Figures()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data = prepare(work)
        unbroken, stopped = work / "unbroken", work / "stopped"
        _finish(data, unbroken)
        _stop_half_way(data, stopped)
        largest = max(path.stat().st_size for path in stopped.rglob("*") if path.is_file())
        for number in range(rounds):
            run = work / "run"
            if number % 4 == 3:
                _fill_disk(data, run, generator.randrange(2048, largest), figures)
            else:
                shutil.copytree(stopped, run)
                _damage(run, generator, figures)
            _finish(data, run)
            figures.different += differences(run, unbroken)
            shutil.rmtree(run)
    return figures


def _damage(run: Path, generator: random.Random, figures: Figures) -> None:
    """Damage the newest checkpoint, or the newest two."""
    for folder in list_checkpoints(run)[: generator.randint(1, 2)]:
        figures.rounds[damage_one(folder, generator)] += 1
        try:
            verify(folder)
            figures.harmless += 1
        except UserError:
            figures.passed_over += 1


def _fill_disk(data: TinyData, run: Path, limit: int, figures: Figures) -> None:
    """Run where no file can grow beyond ``limit`` bytes: it may fail, but must leave no ruin."""
    ranks = start(data.settings(run), file_limit=limit)
    wait_for(ranks)
    figures.rounds["full disk"] += 1
    figures.exit_codes[ranks[0].exitcode] += 1
    if ranks[0].exitcode not in (0, 2):
        raise AssertionError(f"no clear sentence: {(run / 'log.txt').read_text()}")
    for folder in list_checkpoints(run):
        verify(folder)
    if left := [path for path in run.rglob("*.partial")]:
        raise AssertionError(f"left behind: {left}")


def _finish(data: TinyData, run: Path) -> None:
    ranks = start(data.settings(run))
    wait_for(ranks)
    if ranks[0].exitcode:
        raise AssertionError(f"the run failed: {(run / 'log.txt').read_text()}")


def _stop_half_way(data: TinyData, run: Path) -> None:
    """A run with three checkpoints, as a kill leaves it."""
    whole = run.with_name("whole")
    ranks = start(data.settings(whole, checkpoint_every=5, keep_last=5))
    wait_for(ranks)
    shutil.copytree(whole, run)
    for folder in list_checkpoints(run)[:1]:  # the last one is of the end
        shutil.rmtree(folder)
    (run / "training.json").unlink()


def main() -> int:
    """The command; exit code 1 if anything differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.damage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="(default 100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(options.rounds, options.seed)
    print(json.dumps(vars(figures)))
    return int(bool(figures.different))


if __name__ == "__main__":
    run_command(main)
