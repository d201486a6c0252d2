"""Training runs that are to be compared: each on one thread in fp32, told by one small JSON.

A pair shares its seed and its machine. ``study_command`` trains a list of them.
"""

from __future__ import annotations

import inspect
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.files import read_json, write_json
from nanogpt2.lab.records import digest, recorded
from nanogpt2.lab.seams import Patch
from nanogpt2.lab.small_data import code_hash
from nanogpt2.lab.text import Text
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.recipes import RUN1, Recipe, differences
from nanogpt2.reporting.machine import commit, processor_name
from nanogpt2.training.fit import Point, every, fit

PRECISION = "fp32, highest; one thread"
POINTS = 16
"""of a curve"""
CODE = ("config.py", "recipes.py", "depth.py", "data", "kernels", "model", "optim",
        "evals/bits_per_byte.py", "training/fit.py", "lab/text.py", "lab/trials.py")  # fmt: skip
"""what a result depends on"""


@dataclass(frozen=True)
class Trial:
    """A recipe to be trained with a seed: of the start values and of the order of the text."""

    name: str
    recipe: Recipe
    seed: int
    against: str = ""
    """name of the trial that it is compared with, seed by seed and on one machine"""
    within: Callable[[], Patch] | None = None
    """what no recipe says: the code as it is changed for this run; a function of a module"""

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that was chosen."""
        named = {**self.recipe.to_dict(), "name": "", "summary": "", "record": None}
        changed = [f"{self.within.__module__}.{self.within.__qualname__}"] if self.within else []
        return digest([named, self.seed, *changed])


@dataclass(frozen=True)
class Protocol:
    """What all trials of a study share."""

    data: Path
    characters: int = 40_000_000
    """of the text that orders are drawn from"""
    held_out_rows: int = 1280
    """scored at the end"""


def machine() -> str:
    """Processor, its vector instructions, and torch: what rounding and speed depend on."""
    return (
        f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    )


def processors(machines: Iterable[str]) -> str:
    """Where trials ran, for a record, which names torch by itself."""
    return "; ".join(sorted({each.rsplit(", torch ", 1)[0] for each in machines}))


def train(trial: Trial, text: Text, held_out_rows: int) -> dict[str, Any]:
    """Train and score; what the trial's file says."""
    with trial.within() if trial.within else nullcontext():
        return _train(trial, text, held_out_rows)


def _train(trial: Trial, text: Text, held_out_rows: int) -> dict[str, Any]:
    made = dial(recipe=trial.recipe)
    recipe, T = trial.recipe, made.model.sequence_len
    model = GPT(made.model)
    model.init_weights(trial.seed)
    optimizer = build_optimizer(
        model,
        recipe,
        lr_scale=made.lr_scale,
        weight_decay=made.weight_decay,
        dtype=torch.float32,
    )

    def scored(packing: str, rows: int) -> float | None:
        batches = text.held_out(packing, rows, T)
        found = bits_per_byte(model, batches, text.tokenizer.token_bytes, max_tokens=rows * T)
        return found if math.isfinite(found) else None

    losses, curve = list[float](), list[dict[str, Any]]()

    def point(at: Point) -> None:
        loss = statistics.fmean(losses)
        curve.append({"step": at["step"], "loss": round(loss, 5) if math.isfinite(loss) else None})
        losses.clear()

    batches = text.batches(recipe.packing, made.batch_tokens // T, T, trial.seed)
    began, began_cpu = time.perf_counter(), time.process_time()
    fit(
        model,
        optimizer,
        batches,
        made.iterations,
        recipe,
        callbacks=(
            lambda at: losses.append(at["loss"]),
            every(max(1, made.iterations // POINTS), point),
        ),
    )
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "name": trial.name,
        "seed": trial.seed,
        "against": trial.against,
        "identity": trial.identity,
        "recipe": {name: ours for name, (_, ours) in differences(RUN1, recipe).items()},
        "bpb": scored("best_fit", held_out_rows),
        "bpb_stream": scored("stream", held_out_rows // 2),
        "curve": curve,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": made.tokens,
        "flops": model.flops_per_token() * made.tokens,  # as the code is within this run
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "held_out_tokens": held_out_rows * T,
        "data": text.digest,
        "machine": machine(),
        "precision": PRECISION,
        "commit": commit(changed="+changes") or "unknown",
        "source": _source(trial.within),
    }


def _source(within: Callable[[], Patch] | None) -> str:
    """SHA-256 of what a result depends on: the package's code, and the file of a change to it."""
    whole = code_hash(*CODE)
    return digest([whole, inspect.getsource(sys.modules[within.__module__])]) if within else whole


@dataclass(frozen=True)
class Results:
    """The files of a folder: one a trial, seed and machine."""

    folder: Path

    def path(self, trial: Trial) -> Path:
        """Where this machine's file of a trial is."""
        of = digest([machine(), trial.identity])[:6]  # another recipe of the name is another run
        return self.folder / f"{trial.name}.{trial.seed}.{of}.json"

    def all(self) -> list[dict[str, Any]]:
        """What is recorded; UserError where a file is damaged or was edited by hand."""
        return [_read(path) for path in sorted(self.folder.glob("*.json"))]

    def pending(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that no machine has made beside their baseline; what this one lacks, in order."""
        here, of_name = machine(), {(trial.name, trial.seed): trial for trial in trials}
        made_on: dict[str, set[str]] = {}
        for entry in self.all():
            made_on.setdefault(entry["identity"], set()).add(entry["machine"])
        wanted: dict[str, Trial] = {}
        for trial in trials:
            baseline = of_name.get((trial.against, trial.seed))
            pair = [trial] if baseline is None else [baseline, trial]
            if not set.intersection(*(made_on.get(each.identity, set()) for each in pair)):
                for each in pair:
                    if here not in made_on.get(each.identity, ()):
                        wanted.setdefault(each.identity, each)
        return list(wanted.values())

    def by_other_code(self, trials: Sequence[Trial]) -> int:
        """How many of them are recorded, but only as the code was before it last changed."""
        made = dict[str, set[str]]()
        for entry in self.all():
            made.setdefault(entry["identity"], set()).add(entry.get("source", ""))
        known = [trial for trial in trials if trial.identity in made]
        return sum(_source(trial.within) not in made[trial.identity] for trial in known)

    def write(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Put a trial's file in place, whole."""
        body = json.loads(json.dumps(result, allow_nan=False))
        write_json(self.path(trial), {**body, "sha256": digest(body)})


def _read(path: Path) -> dict[str, Any]:
    cure = "restore it from the repository, or move it away to have it made again"
    body: dict[str, Any] = read_json(path, cure)
    if not isinstance(body, dict) or "identity" not in body:
        raise UserError(f"{path} is no run; give the folder that holds the runs alone (--out DIR)")
    if body.pop("sha256", None) != digest(body):
        raise UserError(f"{path} is not what was recorded: its SHA-256 differs; {cure}")
    return body


Entry = Mapping[str, Any]
"""what a trial's file says"""


def ended(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Identity -> its entries, one a machine, but for those that diverged."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry["bpb"] is not None:
            found.setdefault(entry["identity"], []).append(entry)
    return found


def diverged(entries: Sequence[Entry], sides: Iterable[tuple[Trial, Trial]]) -> list[int]:
    """Seeds of pairs of which a run ended without a number."""
    lost = {entry["identity"] for entry in entries if entry["bpb"] is None}
    return [a.seed for a, b in sides if lost & {a.identity, b.identity}]


def require_no_less(name: str, folder: Path, done: int) -> None:
    """UserError where what stands in a record's place is none, or tells of more runs than ``done``.

    Nothing that the user had is replaced, and no evidence by less.
    """
    path = folder / f"{name}.json"
    if path.exists() and (told := recorded(name, folder).results["done"]) > done:
        raise UserError(
            f"{path} tells of {told} runs, and of these seeds there are {done}; name all "
            "seeds (--seeds), or move that record away"
        )


def paired(
    known: Mapping[str, Sequence[Entry]], first: Trial, second: Trial
) -> tuple[Entry, Entry] | None:
    """Both trials' entries from one machine, of those that ``ended``; None where there is none."""
    return next(
        (
            (a, b)
            for a in known.get(first.identity, ())
            for b in known.get(second.identity, ())
            if a["machine"] == b["machine"]
        ),
        None,
    )
