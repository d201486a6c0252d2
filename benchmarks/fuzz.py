"""Feed every reader damaged and hostile files; all must end in a result or one clear sentence.

``python -m benchmarks.fuzz --inputs 10000``: shards, tokenizers, checkpoints and what continues a
run from one, nanochat's checkpoints, CORE's tasks and archives, configurations, whole runs and
settings from the command line are mutated (bits flipped, ends cut, pieces moved, numbers and names
made absurd) and read. A traceback, a write outside the folder, ten seconds in one file or three
gigabytes end it with exit code 1. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.fuzz_readers import MARKER, READERS, make_seeds, mark
from nanogpt2.errors import explain, run_command
from nanogpt2.training.metrics import peak_resident

SECONDS = 10
WRITES = ("open", "os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "os.link")
"""audit events of what changes the disk"""
MEMORY = 3_000_000_000
ABSURD = ("-1", "0", "1e308", "NaN", "9223372036854775808", "1" * 5000, "null", "[]", '""', "true")
ABSURD += ("[" * 20_000, "x" * 200_000)
NAMES = ("../../outside", "/etc/passwd", "a\\u0000b", "\\ud800", "x" * 300)
VALUES = (None, True, -1, 0, 1 << 60, 10**400, 1e308, float("nan"), "", *NAMES, [], {}, [[1]])


@dataclass
class Figures:
    """What came of the inputs."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def mutate(content: bytes, generator: random.Random) -> bytes:
    """``content`` with one to three things wrong."""
    for _ in range(generator.choice((1, 1, 2, 3))):
        content = generator.choice(MUTATIONS)(content, generator)
    return content


def _flip(content: bytes, g: random.Random) -> bytes:
    at = g.randrange(len(content) + 1)
    flipped = bytes(b ^ 1 << g.randrange(8) for b in content[at : at + 1])
    return content[:at] + flipped + content[at + 1 :]


def _cut(content: bytes, g: random.Random) -> bytes:
    return content[: g.randrange(len(content) + 1)]


def _splice(content: bytes, g: random.Random) -> bytes:
    a, b, at = sorted(g.randrange(len(content) + 1) for _ in range(3))
    return content[:at] + content[a:b] + content[at:]


def _drop(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + content[a + g.randint(1, 64) :]


def _noise(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + g.randbytes(g.randint(1, 16)) + content[a + 8 :]


def _replace(pattern: bytes, choices: tuple[str, ...]) -> Callable[[bytes, random.Random], bytes]:
    def change(content: bytes, g: random.Random) -> bytes:
        found = list(re.finditer(pattern, content[:100_000]))
        if not found:
            return content
        spot = g.choice(found)
        return content[: spot.start()] + g.choice(choices).encode() + content[spot.end() :]

    return change


def _alter_json(content: bytes, g: random.Random) -> bytes:
    """One value of a JSON file, or of a safetensors file's header, made absurd, lost or doubled."""
    start, stop = 0, len(content)
    if content[8:9] == b"{":
        start, stop = 8, 8 + int.from_bytes(content[:8], "little")
    try:
        whole = json.loads(content[start:stop])
        holders = [h for h in _holders(whole) if h]
    except (ValueError, RecursionError):
        return content
    if not holders:
        return content
    holder = g.choice(holders)
    key = g.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    change = g.randrange(4)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[g.choice(NAMES)] = holder[key]
    else:
        holder[key] = g.choice(VALUES)
    text = json.dumps(whole).encode()
    return (len(text).to_bytes(8, "little") if start else b"") + text + content[stop:]


def _holders(value: Any) -> Iterator[Any]:
    """Every list and dictionary in ``value``, itself included."""
    if isinstance(value, (list, dict)):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _cut,
    _splice,
    _drop,
    _noise,
    _replace(rb"-?\d+(\.\d+)?", ABSURD),
    _replace(rb'"[^"\n]{0,80}"', ABSURD),
    _replace(rb'(?<=")[^"\n]{1,80}(?=")', NAMES),
    _alter_json,
    _alter_json,
)


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
        for path in arguments[: 1 if base or event == "open" else 2]:
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
    raise TooLong(f"more than {SECONDS} s in one file")


def measure(inputs: int = 10_000, seed: int = 0) -> Figures:
    """Read ``inputs`` mutated files, the kinds in turn."""
    figures, generator = Figures(), random.Random(seed)
    torch.set_num_threads(1)
    previous = signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        seeds, work = Path(name) / "seeds", Path(name) / "work"
        make_seeds(seeds)
        for kind, reader in READERS.items():  # undamaged, all are read
            reader(shutil.copytree(seeds / kind, work))
            shutil.rmtree(work)
        with guarded(work, figures):
            for i in range(inputs):
                kind = list(READERS)[i % len(READERS)]
                figures.outcomes[kind, _one(kind, seeds / kind, work, generator, figures)] += 1
    signal.signal(signal.SIGALRM, previous)
    return figures


def _one(kind: str, seed: Path, work: Path, generator: random.Random, figures: Figures) -> str:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(seed, work)
    victim = generator.choice(sorted(p for p in work.rglob("*") if p.is_file()))
    content = mutate(victim.read_bytes(), generator)
    victim.write_bytes(content)
    if victim.name != MARKER and generator.random() < 0.8:
        for marker in work.rglob(MARKER):
            mark(marker.parent)
    signal.alarm(SECONDS)
    try:
        READERS[kind](work)
        return "read"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # TooLong, and panics of libraries written in Rust
        if explain(error) is not None:
            return "refused"
        digest = hashlib.sha256(content).hexdigest()[:12]
        figures.crashes.append(f"{kind} {victim.name} {digest}\n{traceback.format_exc(limit=-4)}")
        return "crashed"
    finally:
        signal.alarm(0)


def main() -> int:
    """Print the table; 1 where a reader crashed, wrote outside, or took too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(options.inputs, options.seed)
    table = Table(title=f"{options.inputs:,} damaged inputs")
    for heading in ("reader", "read", "refused", "crashed"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for kind in READERS:
        counts = [figures.outcomes[kind, how] for how in ("read", "refused", "crashed")]
        table.add_row(kind, *(f"{n:,}" for n in counts))
    Console().print(table)
    for crash in {text.partition("\n")[2]: text for text in figures.crashes}.values():
        print(crash)
    for written in sorted(set(figures.outside))[:20]:
        print(written)
    peak = peak_resident()
    print(f"writes outside: {len(figures.outside)}; peak memory {peak / 1e9:.2f} GB")
    return int(bool(figures.crashes or figures.outside) or peak > MEMORY)


if __name__ == "__main__":
    run_command(main)
