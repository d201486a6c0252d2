"""Give every reader and writer hostile inputs; all must end in a result or one clear sentence.

``python -m tests.drills.fuzz --inputs 10000``: shards, tokenizers, checkpoints and what continues a
run from one, nanochat's checkpoints, CORE's tasks and archives, configurations, whole runs and
settings from the command line are mutated (bits flipped, ends cut, pieces moved, numbers and names
made absurd) and read; folders of all kinds are written to; commands print to terminals of all
kinds; texts come in all encodings; documents are dealt to any number of ranks. A traceback, a write
outside the folder, anything of the user's that is changed or gone, ten seconds in one input or
three gigabytes end it with exit code 1. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from nanogpt2.errors import explain, run_command
from nanogpt2.training.metrics import peak_memory
from tests.drills.belongings import changes, make_home, snapshot
from tests.drills.fuzz_encodings import encodings
from tests.drills.fuzz_folders import folders
from tests.drills.fuzz_locales import locales
from tests.drills.fuzz_ranks import ranks
from tests.drills.fuzz_readers import READERS, Kind, damaged, make_seeds

SECONDS = 10
WRITES = ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "os.link")
"""audit events of what changes the disk"""
MEMORY = 3_000_000_000
KINDS: dict[str, Kind] = {
    **{name: damaged(name) for name in READERS},
    "folders": folders,
    "locales": locales,
    "encodings": encodings,
    "ranks": ranks,
}


@dataclass
class Figures:
    """What came of the inputs."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """what a user had and has no more, or not as it was"""


@contextmanager
def guarded(allowed: Path, figures: Figures) -> Iterator[None]:
    """Note every file or folder made, changed or removed outside ``allowed``."""
    active = True
    inside = (os.path.realpath(allowed) + os.sep, os.devnull)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active or event not in WRITES or not isinstance(arguments[0], (str, bytes, Path)):
            return
        if event == "open" and not (
            set(str(arguments[1] or "")) & set("wax+")
            or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        folder = arguments[-1] if event in ("os.mkdir", "os.remove", "os.rmdir") else -1
        base = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
        first = 1 if event == "os.symlink" else 0  # what a link says is no path that is written
        for path in arguments[first : 1 if base or event == "open" else 2]:
            if isinstance(path, (str, bytes, Path)):
                whole = os.path.realpath(os.path.join(base, os.fsdecode(path)))
                if not (whole + os.sep).startswith(inside):
                    figures.outside.append(f"{event} {whole}")

    sys.addaudithook(hook)  # cannot be taken back, only silenced
    try:
        yield
    finally:
        active = False


class TooLong(BaseException):
    """No reader may take this for damage."""


def _too_long(*_: Any) -> None:
    raise TooLong(f"more than {SECONDS} s in one input")


def measure(numbers: Sequence[int] = range(10_000), seed: int = 0) -> Figures:
    """What comes of the inputs of these numbers, the kinds in turn.

    An input follows from ``seed`` and its number alone, so that one can be looked at by itself.
    """
    figures = Figures()
    torch.set_num_threads(1)
    previous = signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        seeds, room = Path(name) / "seeds", Path(name) / "room"
        make_seeds(seeds)
        for kind, reader in READERS.items():  # undamaged, all are read
            reader(shutil.copytree(seeds / kind, room))
            shutil.rmtree(room)
        make_home(room / "home")
        with guarded(room / "work", figures):
            for number in numbers:
                kind = list(KINDS)[number % len(KINDS)]
                generator = random.Random(f"{seed} {number}")
                title = f"{kind}, input {number}"
                outcome = run_one(title, KINDS[kind], seeds, room, generator, figures)
                figures.outcomes[kind, outcome] += 1
    signal.signal(signal.SIGALRM, previous)
    return figures


def run_one(
    title: str, kind: Kind, seeds: Path, room: Path, generator: random.Random, figures: Figures
) -> str:
    """Make one input in ``room/work``, hand it over, and look what became of the room."""
    shutil.rmtree(room / "work", ignore_errors=True)
    given, temporary = room / "work" / "given", room / "work" / "temporary"
    given.mkdir(parents=True)
    temporary.mkdir()
    act = kind(seeds, given, generator)
    before, here = snapshot(room), os.getcwd()
    signal.alarm(SECONDS)
    try:
        with patch.object(tempfile, "tempdir", str(temporary)):
            act()
        return "read"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # TooLong, and panics of libraries written in Rust
        if explain(error) is not None:
            return "refused"
        figures.crashes.append(f"{title}\n{traceback.format_exc(limit=-4)}")
        return "crashed"
    finally:
        signal.alarm(0)
        os.chdir(here)
        figures.changed += [f"{title}: {line}" for line in changes(before, snapshot(room))]


def show(figures: Figures) -> None:
    """A table of the outcomes, and all that went wrong: of equal crashes one."""
    table = Table(title=f"{sum(figures.outcomes.values()):,} hostile inputs")
    for heading in ("kind", "read", "refused", "crashed"):
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in KINDS:
        counts = [figures.outcomes[kind, how] for how in ("read", "refused", "crashed")]
        table.add_row(kind, *(f"{n:,}" for n in counts))
    Console().print(table)
    for crash in {text.partition("\n")[2]: text for text in figures.crashes}.values():
        print(crash)
    for line in [*figures.changed[:40], *sorted(set(figures.outside))[:20]]:
        print(line)
    print(f"changed: {len(figures.changed)}; writes outside: {len(figures.outside)}")


def main() -> int:
    """Print the table; 1 where one crashed, changed or wrote what it may not, or took too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--only", type=int, metavar="N", help="input N alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers = range(options.inputs) if options.only is None else [options.only]
    figures = measure(numbers, options.seed)
    show(figures)
    peak = peak_memory(torch.device("cpu"))
    print(f"peak memory {peak / 1e9:.2f} GB")
    return int(bool(figures.crashes or figures.changed or figures.outside) or peak > MEMORY)


if __name__ == "__main__":
    run_command(main)
