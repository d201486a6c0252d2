"""The chapter on the speedrun: rehearsals of the real command, plans, records, the laptop's run."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import named_path, read_json
from nanogpt2.lab.records import record
from nanogpt2.machines import GB, machine_of
from nanogpt2.planning import RECORD_DEVICES, plan, record_mfu
from nanogpt2.recipes import RECIPES, get_recipe

RECORDS = ("run1", "run2", "run3", "run4", "run5", "run6")
NODE_DOLLARS = 24.0
"""an hour of 8xH100, as the announcement of 29 January 2026 counts it"""
PRICES = (
    ("29 January 2026", "what the announcement counts with", 24.00, "nanochat, discussion 481"),
    ("April 2026", "RunPod, Secure Cloud", 22.32, "techplained.aptechsolutions.io"),
    ("April 2026", "Vast.ai, spot, lowest", 12.16, "techplained.aptechsolutions.io"),
    ("May 2026", "hyperscalers, from", 28.00, "mercatus-ai.com"),
    ("May 2026", "smaller providers, from", 15.92, "mercatus-ai.com"),
)
"""(when, whose, dollars an hour for 8xH100, where it was read)"""


@dataclass(frozen=True)
class Rehearsal:
    """One start of the command."""

    code: int
    """exit code; negative: killed by that signal"""
    seconds: float
    said: list[str]
    """lines of stdout"""
    steps: int
    """lines in the run's metrics when it ended"""


def rehearse(
    out: Path, *options: str, kill_at: int | None = None, timeout: float = 300
) -> Rehearsal:
    """Run ``python -m nanogpt2.speedrun --out out`` with ``options``, as a user would.

    Args:
        out: the run's folder.
        kill_at: send SIGKILL to it and all its ranks once so many steps are on record.
        timeout: seconds after which it is killed, and UserError raised.
    """
    command = [sys.executable, "-m", "nanogpt2.speedrun", "--out", str(out), *options]
    # into a file, not onto a terminal, whatever a notebook has made its children believe
    forced = ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS")
    environment = {name: value for name, value in os.environ.items() if name not in forced}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TERM": "dumb"}
    log, started = out.parent / f"{out.name}.log", time.perf_counter()
    with (
        log.open("wb") as stdout,
        subprocess.Popen(
            command, env=environment, stdout=stdout, stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        while process.poll() is None:
            late = time.perf_counter() - started > timeout
            if late or (kill_at is not None and steps_done(out) >= kill_at):
                _kill_all(process.pid)
                process.wait()
                if late:
                    raise UserError(
                        f"the run did not end within {timeout:g} s; free the machine of other "
                        "work and run the cell again"
                    )
            time.sleep(0.1)
    seconds, text = time.perf_counter() - started, log.read_text("utf-8", "replace")
    said = text.replace(str(out), f"runs/{out.name}").splitlines()
    return Rehearsal(process.returncode, seconds, said, steps_done(out))


def _kill_all(pid: int) -> None:
    """SIGKILL to a process and all below it: the launcher's ranks have sessions of their own."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def metrics(out: Path) -> list[dict[str, Any]]:
    """The steps on record, whole lines only."""
    path = out / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def steps_done(out: Path) -> int:
    """The last step on record."""
    found = metrics(out)
    return found[-1]["step"] if found else 0


def prepared_copy(run: Path, out: Path) -> Path:
    """``run`` as it was before training, with the same data and tokenizer: to train it again."""
    shutil.copytree(run / "data", out / "data")
    shutil.copytree(run / "tokenizer", out / "tokenizer")
    (out / "stages").mkdir()
    for stage in ("data", "tokenizer"):
        shutil.copy2(run / "stages" / f"{stage}.json", out / "stages")
    return out


def same_weights(first: Path, second: Path) -> bool:
    """Whether the newest checkpoints of two runs hold the same bits."""
    import torch
    from safetensors.torch import load_file

    folders = [sorted((run / "checkpoints").glob("step_*"))[-1] for run in (first, second)]
    one, other = (load_file(folder / "model.safetensors") for folder in folders)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def plan_rows(
    machines: Sequence[tuple[str, int]], recipe: str = "run1", depth: int | None = None
) -> list[list[str]]:
    """Rows: machine, does it fit, rows a pass, passes a step, GB, days or hours, dollars."""
    rows = []
    for kind, devices in machines:
        found = plan(recipe, depth, machine_of(kind, devices))
        hours = (found.seconds or 0) / 3600
        rows.append(
            [
                f"{devices} x {kind}",
                "yes" if found.fits else "no",
                str(found.device_batch_size),
                str(found.accumulation),
                f"{found.memory.peak / GB:.0f} of {found.machine.memory_bytes / GB:.0f}",
                _span(hours) if hours else "not known",
                f"{found.dollars:,.0f}" if found.dollars else "your price",
            ]
        )
    return rows


def _span(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def price_rows() -> list[list[str]]:
    """Rows: when, whose, dollars an hour, dollars for run 1's hours, source."""
    hours = 10_949.46713 / 3600
    return [
        [when, whose, f"{price:.2f}", f"{price * hours:.0f}", source]
        for when, whose, price, source in PRICES
    ]


def leaderboard_rows() -> list[list[Any]]:
    """Rows: record, steps, FLOPs, hours (reported), dollars, part of the bf16 peak, CORE."""
    rows = []
    for name in RECORDS:
        recipe = get_recipe(name)
        at, told = dial(recipe=recipe), recipe.record
        assert told is not None
        rows.append(
            [
                name,
                f"{at.iterations:,}",
                f"{at.total_flops:.4e}",
                f"{told.hours:.2f}",
                f"{told.hours * NODE_DOLLARS:.0f}",
                f"{record_mfu(name):.1%}",
                f"{told.core:.4f}",
            ]
        )
    return rows


def changes_of(name: str) -> list[str]:
    """How a record's recipe differs from the one before it, field by field."""
    before = get_recipe(RECORDS[RECORDS.index(name) - 1]).to_dict()
    return list(_differences(before, get_recipe(name).to_dict()))


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    for key, value in new.items():
        if key in ("name", "summary", "record"):
            continue
        where, was = f"{path}{key}", old.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, f"{where}.")
        elif value != was:
            yield f"{where} {was} → {value}"


def change_rows() -> list[list[str]]:
    """Rows: record, what its recipe changed."""
    return [[name, "; ".join(changes_of(name))] for name in RECORDS[1:]]


def peak_share(name: str) -> float:
    """FLOP/s of a record on each GPU."""
    told = get_recipe(name).record
    assert told is not None
    return dial(recipe=get_recipe(name)).total_flops / (told.hours * 3600 * RECORD_DEVICES)


def gpt3_hours(low: float = 0.5, high: float = 1.0) -> tuple[float, float]:
    """Hours of the 8xH100 node for GPT-3's 6 x 175e9 x 300e9 FLOPs.

    At run 1's speed times ``high``, and times ``low``: models that do not fit a node run slower.
    """
    flops = 6 * 175e9 * 300e9
    speed = peak_share("run1") * RECORD_DEVICES
    return flops / (speed * high) / 3600, flops / (speed * low) / 3600


def model_of(recipe: str) -> GPTConfig:
    """A recipe's model at its own depth."""
    return dial(recipe=RECIPES[recipe]).model


def record_run(run: Path) -> str:
    """Write a finished run's curve, scores and samples to ``book/results``; the record's path."""
    config, evaluation = read_json(run / "config.json"), read_json(run / "evaluation.json")
    curve, training = metrics(run), read_json(run / "training.json")
    if not curve or curve[-1]["step"] < training["steps"]:
        raise UserError(f"{run} is not a finished run; run the command again, it goes on")
    every = max(1, len(curve) // 200)
    kept = [p for i, p in enumerate(curve) if i % every == 0 or "val_bpb" in p or p is curve[-1]]
    results: dict[str, Any] = {
        "val_bpb": evaluation["val_bpb"],
        "val_tokens": evaluation["tokens"],
        "tokens_per_second": training["tokens_per_second"],
        "memory_bytes": training["memory_bytes"],
        "parameters": training["parameters"],
        "samples": read_json(run / "samples.json"),
        "machine": config["machine"],
    }
    core = run / "core.json"
    if core.is_file():
        found = read_json(core)
        results["core"] = {name: found[name] for name in ("core", "core_corrected", "protocol")}
        results["core"]["standard_error"] = found["standard_error"]
        results["core"]["tasks"] = {
            label: {name: task[name] for name in ("accuracy", "standard_error", "examples")}
            for label, task in found["tasks"].items()
        }
    path = record(
        f"speedrun-{config['name']}",
        command=config["command"],
        configuration={"recipe": config["recipe"], "settings": config["settings"]},
        seed=config["seed"],
        tokens=training["tokens"],
        seconds=training["seconds"],
        curve=kept,
        results=results,
        note=f"The whole command on {config['machine'].get('cores', '?')} cores, started at "
        f"{config['machine'].get('started', '?')} from commit "
        f"{config['machine'].get('commit', '?')}; the samples were not chosen.",
    )
    return str(path)


def stages_said(rehearsal: Rehearsal) -> list[str]:
    """What the command says from its second stage on: the first repeats the plan."""
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in rehearsal.said]
    begin = next((i for i, line in enumerate(plain) if line.startswith("2/")), 0)
    return [line for line in plain[begin:] if line]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the record."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.lab.speedrun", description="Record a finished run for the book."
    )
    parser.add_argument("run", type=named_path, help="the run's folder, such as runs/laptop")
    print(record_run(parser.parse_args(argv).run))


if __name__ == "__main__":
    run_command(main)
