"""The laptop recipe's speed on a machine that does other things too: three ways to use its cores.

    python -m benchmarks.busy [--seconds 12] [--rounds 3] [--json PATH]

Each round runs every way twice, with the machine left alone and with as many busy processes beside
it as there are cores, in turn: figures of one row belong together. The trainer itself runs, from
data to metrics; the median step counts. Ways: one process whose threads spin while they wait
(``active``), sleep at once (``passive``) or spin for some microseconds first (``brief``), and one
process of one thread a core (``ranks``).
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
from nanogpt2.data.corpus import write_embedded_corpus
from nanogpt2.data.tokenizer import Tokenizer, text_sample
from nanogpt2.errors import UserError, run_command
from nanogpt2.machines import cores

CORES = cores()

WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "active": ([], {"OMP_WAIT_POLICY": "active"}),
    "passive": ([], {"OMP_WAIT_POLICY": "passive"}),
    "brief": ([], {"GOMP_SPINCOUNT": "10000"}),
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
    texts = text_sample(folder / "data", max_chars=20_000_000)
    Tokenizer.train(texts, 4096).save(folder / "tokenizer")


def tokens_per_second(folder: Path, way: str, seconds: float) -> float:
    """Median over the steps of a run of so many seconds."""
    between, more = WAYS[way]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, *between, "-m", "nanogpt2.training.trainer"]
        command += ["--data", str(folder / "data"), "--tokenizer", str(folder / "tokenizer")]
        command += ["--out", out, "--max-seconds", str(seconds), "--eval-every", "-1"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        path = Path(out) / "metrics.jsonl"
        if done.returncode or not path.exists():
            raise UserError(f"the run with {way} threads failed: {done.stderr[-2000:]}")
        lines = path.read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["tokens_per_second"] for line in lines]
    return statistics.median(steps[min(SETTLING, len(steps) // 2) :])


def measure(seconds: float, rounds: int, niceness: int) -> list[Row]:
    """Rows of tokens a second, idle and busy, and what is kept, by way."""
    speeds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for number in range(rounds):
            for way in WAYS:
                for beside in (0, CORES):
                    with busy(beside, niceness):
                        speed = tokens_per_second(Path(folder), way, seconds)
                    print(f"round {number + 1}: {way}, {beside} beside it: {speed:,.0f} tokens/s")
                    speeds.setdefault((way, beside), []).append(speed)
    middle = {key: statistics.median(found) for key, found in speeds.items()}
    best = max(middle[way, 0] for way in WAYS)
    rows = []
    for (way, beside), speed in middle.items():
        what = f"{way}, {beside} busy processes beside it" if beside else f"{way}, left alone"
        found = speeds[way, beside]
        rows += [
            Row("busy", what, speed, f"tokens/s ({min(found):,.0f} to {max(found):,.0f})"),
            Row("busy", what, speed / best, "of the fastest, left alone"),
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
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    report(measure(options.seconds, options.rounds, options.nice), options.json, "Busy machines")


if __name__ == "__main__":
    run_command(main)
