"""Every part of the trainer, timed: one table, and JSON.

python -m benchmarks [PART ...] [--bundle DIR] [--json PATH] [--record NAME]

Each part runs in a process of its own, so that its peak memory is its own. Ratios are taken within
one part and hold on a shared machine; seconds hold on a quiet one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.parts import PARTS, run_part
from benchmarks.table import Row, machine, report
from nanogpt2.data.bundle import find_bundle
from nanogpt2.errors import UserError, run_command
from nanogpt2.lab.records import record


def measure(parts: list[str], bundle: Path | None) -> list[Row]:
    """All rows, part by part."""
    rows: list[Row] = []
    for part in parts:
        print(f"{part} ...", flush=True)
        try:
            more = {"bundle": find_bundle(bundle)} if part == "core" else {}
        except UserError as error:  # the other parts need no network
            print(f"{part} is left out: {error}")
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows += pool.apply(run_part, (part, more))
    return rows


def main() -> None:
    """Run the parts asked for; all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="CORE's tasks; without: fetched")
    parser.add_argument("--json", type=Path, metavar="PATH", default=Path("_build/bench.json"))
    parser.add_argument("--record", metavar="NAME", help="write book/results/NAME.json as well")
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            raise UserError(f"there is no part {part!r}; choose of {', '.join(PARTS)}")
    parts, start = options.parts or list(PARTS), time.perf_counter()
    rows = measure(parts, options.bundle)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report(rows, options.json, str(machine()["device"]))
    if options.record:
        path = record(
            options.record,
            command=f"python -m benchmarks {' '.join(options.parts)}".strip(),
            configuration={"parts": parts, "machine": machine()},
            seed=0,
            tokens=0,
            seconds=time.perf_counter() - start,
            curve=[],
            results={"rows": [asdict(row) for row in rows]},
        )
        print(f"recorded in {path}")


if __name__ == "__main__":
    run_command(main)
