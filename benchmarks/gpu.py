"""All that a GPU can prove and measure, for whoever has one: one command, in stages.

    python -m benchmarks.gpu --plan                       the stages, most valuable first
    python -m benchmarks.gpu                              all of them
    python -m benchmarks.gpu --device cpu --small         rehearse them on a processor

A stage takes eight minutes at most. Each of its parts is a process of its own, and what it found is
recorded as soon as it ends, in book/results/benchmarks-GPU-STAGE.json (a rehearsal: _build/gpu/).
The same command goes on where it was stopped: of what is recorded for this GPU it does again only
the parts that failed. No network is needed: CORE's tasks and text come from --bundle and --data.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import STAGES, Stage, rows_of
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import named_path, write_json

ROOT = Path(__file__).resolve().parent.parent
STAGE_SECONDS = 8 * 60.0
REHEARSED = ROOT / "_build" / "gpu"
SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Place:
    """Where the parts run, with what, and where their records go."""

    device: str
    """cuda or cpu"""
    name: str
    """of the device, as its maker calls it"""
    small: bool
    bundle: Path | None
    data: Path | None
    folder: Path | None = None
    """of the records; None: book/results/"""

    def record_of(self, stage: Stage) -> str:
        """The name of a stage's record: one a kind of GPU."""
        from nanogpt2.machines import find_accelerator

        card = find_accelerator(self.name)
        kind = SLUG.sub("-", (card.name if card else self.name).lower()).strip("-")
        return f"benchmarks-{kind}-{stage.name}"


Found = dict[str, Any]
"""of a stage: rows, the parts that are done, and why others failed"""


def run_part(place: Place, stage: str, part: str, seconds: float) -> list[dict[str, Any]]:
    """The rows of one part, from a process of its own; UserError says why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--one", stage, part, str(path)]
        command += ["--device", place.device, *(["--small"] if place.small else [])]
        for option in ("bundle", "data"):
            given = getattr(place, option)
            command += [f"--{option}", str(given)] if given else []
        try:
            ended = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, seconds)
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"it did not end within {seconds:.0f} s") from None
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip() or "nothing").splitlines()
            raise UserError(f"exit code {ended.returncode}: {said[-1][:300]}")
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return rows


Runner = Callable[[Place, str, str, float], list[dict[str, Any]]]


def run_stage(stage: Stage, place: Place, again: bool = False, run: Runner = run_part) -> Found:
    """Do the parts of ``stage`` that are not recorded, each recorded as it ends."""
    found = {"rows": [], "done": [], "failed": {}} if again else known(stage, place)
    began = time.monotonic()
    for part in stage.parts:
        if part in found["done"]:
            continue
        left = STAGE_SECONDS - (time.monotonic() - began)
        if left <= 0:
            print(f"  {part}: no time is left; the same command goes on with it", flush=True)
            break
        print(f"  {part} ...", flush=True)
        try:
            found["rows"] += run(place, stage.name, part, left)
            found["done"].append(part)
            found["failed"].pop(part, None)
        except UserError as error:
            found["failed"][part] = str(error)
            print(f"  {part} failed: {error}", flush=True)
        write(stage, place, found, time.monotonic() - began)
    return found


def known(stage: Stage, place: Place) -> Found:
    """What is recorded of the stage for this device; nothing where it was another one."""
    from nanogpt2.lab.records import recorded

    try:
        record = recorded(place.record_of(stage), place.folder)
    except UserError:
        return {"rows": [], "done": [], "failed": {}}
    same = record.device == place.name and record.configuration.get("small") == place.small
    empty: Found = {"rows": [], "done": [], "failed": {}}
    return {name: record.results[name] for name in empty} if same else empty


def write(stage: Stage, place: Place, found: Found, seconds: float) -> None:
    """The stage's record, with what is known so far."""
    from benchmarks.table import machine
    from nanogpt2.lab.records import record

    path = record(
        place.record_of(stage),
        command=f"python -m benchmarks.gpu {stage.name}",
        configuration={"stage": stage.name, "small": place.small, "machine": machine()},
        seed=0,
        tokens=0,
        seconds=seconds,
        curve=[],
        results=found,
        device=place.name,
        folder=place.folder,
    )
    print(f"  recorded in {path}", flush=True)


def plan(stages: Sequence[Stage]) -> Iterator[str]:
    """The stages and their parts in lines for people."""
    for number, stage in enumerate(stages, start=1):
        yield f"{number:>2}  {stage.name:<10}{stage.title}"
        yield f"    {'':<10}{'; '.join(stage.parts)}"


def place_of(options: argparse.Namespace) -> Place:
    """UserError without a GPU, unless a processor is asked for."""
    import torch

    from nanogpt2.lab.records import describe_device

    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "there is no GPU here that torch can use; --plan lists the stages, and "
            "--device cpu --small rehearses them"
        )
    folder = None if options.device == "cuda" and not options.small else REHEARSED
    name = describe_device()
    return Place(options.device, name, options.small, options.bundle, options.data, folder)


def main() -> int:
    """Run the stages asked for; 1 where a part failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help=", ".join(stage.name for stage in STAGES))
    add("--plan", action="store_true", help="list the stages, and do nothing")
    add("--again", action="store_true", help="do again what is recorded")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--small", action="store_true", help="at sizes that take seconds")
    add("--bundle", type=named_path, metavar="DIR", help="CORE's tasks (without: fetched)")
    add("--data", type=named_path, metavar="DIR", help="text to train on (without: embedded)")
    add("--one", nargs=3, metavar=("STAGE", "PART", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [stage.name for stage in STAGES]
    if unknown := set(options.stages) - set(names):
        raise UserError(f"there is no stage {unknown.pop()!r}; choose of {', '.join(names)}")
    wanted = [stage for stage in STAGES if not options.stages or stage.name in options.stages]
    if options.plan:
        print(*plan(wanted), sep="\n")
        return 0
    place = place_of(options)
    if options.one:
        stage, part, path = options.one
        rows = rows_of(stage, part, place.device, place.small, place.bundle, place.data)
        write_json(Path(path), [asdict(row) for row in rows])
        return 0
    failed = 0
    for stage in wanted:
        print(f"{stage.name}: {stage.title}", flush=True)
        failed += len(run_stage(stage, place, options.again)["failed"])
    return int(failed > 0)


if __name__ == "__main__":
    run_command(main)
