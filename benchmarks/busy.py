"""The laptop recipe's speed on a machine that does other things too: three ways to use its cores.

    python -m benchmarks.busy [--seconds 12] [--rounds 3] [--bundle DIR] [--json PATH]

Each round runs every way twice, with the machine left alone and with as many busy processes beside
it as there are cores, in turn: figures of one row belong together. The trainer itself runs, from
data to metrics; the median step counts. Then the model writes and, with CORE's bundle, answers.
Ways: one process whose threads spin while they wait (``active``), sleep at once (``passive``) or
spin for some microseconds first (``brief``), and one process of one thread a core (``ranks``,
training alone).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.table import Row, report
from nanogpt2 import BRIEF
from nanogpt2.data.corpus import write_embedded_corpus
from nanogpt2.data.shards import find_shards
from nanogpt2.data.tokenizer import Tokenizer, text_sample
from nanogpt2.errors import UserError, run_command
from nanogpt2.machines import cores

CORES = cores()

WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "active": ([], {"OMP_WAIT_POLICY": "active"}),
    "passive": ([], {"OMP_WAIT_POLICY": "passive"}),
    "brief": ([], {"GOMP_SPINCOUNT": BRIEF}),
    "ranks": (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={CORES}"],
        {"OMP_NUM_THREADS": "1"},
    ),
}
"""what stands between ``python`` and ``-m nanogpt2.training.trainer``, and the environment"""
SETTLING = 10
"""first steps that do not count"""


@contextmanager
def busy(processes: int, niceness: int) -> Iterator[None]:
    """As many processes that never rest, beside what runs within."""
    code = f"import os; os.nice({niceness})\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def prepare(folder: Path) -> None:
    """The embedded corpus and the laptop recipe's tokenizer, in ``folder``."""
    write_embedded_corpus(folder / "data")
    texts = text_sample(find_shards(folder / "data").train, max_chars=20_000_000)
    Tokenizer.train(texts, 4096).save(folder / "tokenizer")


def run(way: str, *command: str) -> str:
    """What ``python -m command`` printed, run in this way."""
    between, more = WAYS[way]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, *between, "-m", *command],
        env=environment | more, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{command[0]} with {way} threads failed: {done.stderr[-2000:]}")
    return done.stdout


def training(folder: Path, way: str, seconds: float) -> float:
    """Tokens a second: median over the steps of a run of so many seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        run(
            way, "nanogpt2.training.trainer", "--data", str(folder / "data"),
            "--tokenizer", str(folder / "tokenizer"), "--out", out,
            "--max-seconds", str(seconds), "--eval-every", "-1",
        )  # fmt: skip
        lines = (Path(out) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["tokens_per_second"] for line in lines]
    return statistics.median(steps[min(SETTLING, len(steps) // 2) :])


def speeds(folder: Path, way: str, seconds: float, bundle: Path | None) -> dict[str, float]:
    """Of each kind of work, things done a second."""
    found = {"training": training(folder, way, seconds)}
    if way != "ranks":
        more = ["--bundle", str(bundle)] if bundle else []
        found |= json.loads(run(way, "benchmarks.reading", str(folder / "tokenizer"), *more))
    return found


def measure(seconds: float, rounds: int, niceness: int, bundle: Path | None) -> list[Row]:
    """Rows of things done a second, idle and busy, and what is kept, by work and way."""
    seen: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for number in range(rounds):
            for way in WAYS:
                for beside in (0, CORES):
                    with busy(beside, niceness):
                        found = speeds(Path(folder), way, seconds, bundle)
                    told = ", ".join(f"{work} {speed:,.0f}" for work, speed in found.items())
                    print(f"round {number + 1}: {way}, {beside} beside it: {told} a second")
                    for work, speed in found.items():
                        seen.setdefault((work, way, beside), []).append(speed)
    middle = {key: statistics.median(found) for key, found in seen.items()}
    rows = []
    for (work, way, beside), speed in middle.items():
        best = max(v for (w, _, n), v in middle.items() if w == work and not n)
        what = f"{way}, {beside} busy processes beside it" if beside else f"{way}, left alone"
        found = seen[work, way, beside]
        unit = "items" if work == "CORE" else "tokens"
        rows += [
            Row(work, what, speed, f"{unit}/s ({min(found):,.0f} to {max(found):,.0f})"),
            Row(work, what, speed / best, "of the fastest, left alone"),
        ]
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busy", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=12, help="of training each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nice", type=int, default=0, help="of the busy processes")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="CORE's data")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    rows = measure(options.seconds, options.rounds, options.nice, options.bundle)
    report(rows, options.json, "Busy machines")


if __name__ == "__main__":
    run_command(main)
