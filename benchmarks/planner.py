"""The planner against reality: what was planned for a run on this processor, and what it took.

    python -m benchmarks.planner [--work FOLDER] [--again]

Six configurations that differ in what they cost are each planned as ``--dry-run`` does it, and at
once trained for a few steps by ``python -m nanogpt2.speedrun`` in a process of its own, so that the
planner's look at the processor's speed and the run meet the same load. Memory is the kernel's
VmHWM of that process (of several ranks: of the first, which is the fullest): Python, torch, text,
optimizer, the copies that are being saved and all else that was ever resident. ``getrusage`` would
not do, for what it says on Linux begins with the process that started it. A step's time is the
median after the first three. Each configuration is recorded as it ends, in
book/results/benchmarks-planner.json; the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from nanogpt2 import planning
from nanogpt2.asked import asked_for, parser
from nanogpt2.data.corpus import works
from nanogpt2.data.shards import find_shards, write_shard
from nanogpt2.data.tokenizer import Tokenizer, text_sample
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_directory, named_path
from nanogpt2.lab.records import describe_device, record, recorded
from nanogpt2.machines import GB, cores
from nanogpt2.training.metrics import read_steps

RECORD = "benchmarks-planner"
STEPS, WARM_UP = 10, 3
WATCH = f"--steps {STEPS} --eval-every 0 --checkpoint-every 4"
"""saved early on: from then on the copies are held"""
GPT2 = (
    "positions=learned norm=layer norm_learnable=true bias=true activation=gelu qk_norm=false "
    "tied_head=true embedding_norm=false value_embeddings=false residual_scalars=false "
    "window_pattern=L logit_softcap=0 wte_std=0.02 matrices=adamw "
    "wte.lr=0.001"
)
CONFIGURATIONS = {
    "the laptop's recipe, 2 ranks": "--cpu-ranks 2",
    "width 384, 8 x 512, fp32": "aspect=96 sequence_len=512 device_batch_size=8 precision=fp32",
    "depth 8, 4 x 1,024": "depth=8 sequence_len=1024 device_batch_size=4",
    "depth 10, 8 x 512, recomputed": "depth=10 sequence_len=512 recompute=on device_batch_size=8",
    "vocabulary 16,384, 2 passes, fp32": "depth=6 sequence_len=512 vocab_size=16384 "
    "device_batch_size=4 precision=fp32",
    "GPT-2's switches, tied head": f"depth=6 aspect=64 sequence_len=512 {GPT2}",
}
"""name -> options, and settings of the laptop's recipe; 4,096 tokens a step each"""
HELD_OUT = 40
"""documents that are measured at a run's end, which is not what is timed here"""


def words_of(asked: str, work: Path, out: Path) -> list[str]:
    """The command line of ``nanogpt2.speedrun`` for one configuration, its text at hand."""
    if not (work / "text").is_dir():
        texts = [text for one in works()[0] for text in one]
        with atomic_directory(work / "text") as temporary:
            write_shard(temporary / "train.parquet", texts[HELD_OUT:])
            write_shard(temporary / "validation.parquet", texts[:HELD_OUT])
    words = ["--recipe", "laptop", "--out", str(out), "--data", str(work / "text"), *WATCH.split()]
    for word in asked.split():
        words += ["--set", word] if "=" in word else [word]
    if "--cpu-ranks" not in words:
        words += ["--cpu-ranks", "1"]
    size = asked_for(parser().parse_args(words))[0].recipe.model.vocab_size
    folder = work / f"tokenizer-{size}"
    if not folder.is_dir():
        sample = text_sample(find_shards(work / "text").train, 20_000_000)
        Tokenizer.train(sample, size).save(folder)
    return [*words, "--tokenizer", str(folder)]


def compared(asked: str, work: Path) -> dict[str, float]:
    """Planned and measured GB and seconds of a step, from one run; UserError where it failed."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "run"
        words = words_of(asked, work, out)
        run, plan = asked_for(parser().parse_args(words))
        plan = planning.measured(plan, run.recipe)
        command = [sys.executable, "-m", "nanogpt2.speedrun", *words]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode or plan.step_seconds is None:
            said = ended.stderr.strip().splitlines() or ["its step cannot be timed before it"]
            raise UserError(f"{asked}: {said[-1]}")
        lines = read_steps(out / "metrics.jsonl")
        tokens = run.dial.batch_tokens
        return {
            "GB planned": plan.memory.peak / GB,
            "GB measured": lines[-1]["memory_bytes"] / GB,
            "s planned": plan.step_seconds,
            "s measured": median(tokens / line["tokens_per_second"] for line in lines[WARM_UP:]),
        }


def measure(
    configurations: Mapping[str, str], work: Path, folder: Path | None = None, again: bool = False
) -> dict[str, dict[str, float]]:
    """Compare what is not recorded for these configurations on this machine, each as it ends."""
    about: dict[str, Any] = {"watch": WATCH, "cores": cores(), **configurations}
    found: dict[str, dict[str, float]] = {}
    try:
        known = None if again else recorded(RECORD, folder)
    except UserError:
        known = None
    if known and known.device == describe_device():
        same = {name for name in about if known.configuration.get(name) == about[name]}
        if {"watch", "cores"} <= same:
            found = {name: run for name, run in known.results["runs"].items() if name in same}
    seconds = known.seconds if known and found else 0.0
    for number, (name, asked) in enumerate(configurations.items(), start=1):
        if name in found:
            continue
        print(f"{number}/{len(configurations)} {name} ...", flush=True)
        began = time.perf_counter()
        one = found[name] = {**compared(asked, work), "load": os.getloadavg()[0]}
        seconds += time.perf_counter() - began
        print("  " + ", ".join(f"{what} {value:.3g}" for what, value in one.items()), flush=True)
        record(
            RECORD,
            command="python -m benchmarks.planner",
            configuration=about,
            seed=0,
            tokens=0,
            seconds=seconds,
            curve=[],
            results={"runs": found},
            note="The planner looked at the processor's speed just before each run. Load is the "
            "mean number of processes that wanted a core in the minute before the run's end: above "
            "the number of cores, the seconds are those of a machine that had other things to do.",
            folder=folder,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare all six."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    made.add_argument("--work", type=named_path, default=Path("_build/planner"), metavar="FOLDER")
    made.add_argument("--again", action="store_true", help="also what is recorded")
    options = made.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    measure(CONFIGURATIONS, options.work, again=options.again)


if __name__ == "__main__":
    run_command(main)
