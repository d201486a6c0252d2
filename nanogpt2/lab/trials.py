"""Training runs that are to be compared: several at once, each a file when it is done.

A study hands over a list of trials, most important first. Each is trained on one thread in fp32,
and told by one small JSON; a list that was interrupted goes on with the trials that have none.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from nanogpt2.data.shards import find_shards
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.files import named_path, read_json, write_json
from nanogpt2.lab.records import digest, results_folder
from nanogpt2.lab.seams import Patch
from nanogpt2.lab.small_data import code_hash
from nanogpt2.lab.text import Text, text_of
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
    cure = "restore it from the repository, or delete it to have it made again"
    body: dict[str, Any] = read_json(path, cure)
    if not isinstance(body, dict) or body.pop("sha256", None) != digest(body):
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


def study_arguments(
    key: str,
    description: str,
    argv: Sequence[str] | None,
    *,
    folder: str,
    stages: Sequence[str] = ("all", "summary"),
    untrained: Iterable[str] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    characters: int = Protocol.characters,
) -> tuple[argparse.Namespace, Results, Callable[[Sequence[Trial]], None]]:
    """What ``python -m nanogpt2.studies.KEY`` was given, its results, and what trains trials.

    ``folder`` of ``book/results`` holds the results unless ``--out`` names another. UserError where
    there is training to do and no text to train on, in all stages but "summary" and ``untrained``,
    no run to sum up, or an option out of its range.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m nanogpt2.studies.{key}", description=description
    )
    parser.add_argument("--data", type=named_path, help="folder of parquet shards of English text")
    parser.add_argument("--stage", choices=stages, default="all", help="all of it, or a part")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*seeds])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, a core each")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="these, and what they are against")
    parser.add_argument("--out", type=named_path, help=f"book/results/{folder} by default")
    parser.add_argument("--pause-file", type=Path, help="no run begins while this file exists")
    at = parser.parse_args(argv)
    if at.jobs < 1:
        raise UserError(f"--jobs is {at.jobs}; it must be at least 1")
    if len({*at.seeds}) < len(at.seeds) or not all(0 <= seed < 2**63 for seed in at.seeds):
        raise UserError("--seeds are whole numbers from 0 on, each named once")
    if at.only and at.stage != "all":
        raise UserError(f"--only chooses runs, and --stage {at.stage} makes none; leave out one")
    if at.data is None and at.stage not in ("summary", *untrained):
        raise UserError(
            "there is no text to train on; give a folder of parquet shards (--data DIR)"
        )
    results = Results(at.out or results_folder() / folder)
    if at.data is not None:
        find_shards(at.data)
    if at.stage == "summary" and not any(results.folder.glob("*.json")):
        raise UserError(f"{results.folder} holds no runs; give the folder of the runs (--out DIR)")

    def run(trials: Sequence[Trial]) -> None:
        protocol = Protocol(at.data, characters)
        if at.only:
            trials = [trial for trial in chosen(trials, at.only) if trial.seed in at.seeds]
        run_trials(trials, protocol, results, at.jobs, at.pause_file, tell)

    return at, results, run


def chosen(trials: Sequence[Trial], names: Collection[str]) -> list[Trial]:
    """Trials of these names and, seed by seed, what they are compared with.

    UserError, with all names, where one is none of them.
    """
    if unknown := sorted({*names} - {trial.name for trial in trials}):
        known = ", ".join(dict.fromkeys(trial.name for trial in trials))
        raise UserError(f"there is no run {unknown[0]!r}; choose of: {known}")
    against = {(trial.against, trial.seed) for trial in trials if trial.name in names}
    return [t for t in trials if t.name in names or (t.name, t.seed) in against]


def tell(sentence: str) -> None:
    """Print at once, for who reads a log."""
    print(sentence, flush=True)


def run_trials(
    trials: Sequence[Trial],
    protocol: Protocol,
    results: Results,
    jobs: int = 2,
    pause_file: Path | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Train those that are pending, ``jobs`` at a time; none begins while ``pause_file`` exists.

    UserError where the runs in the folder of ``results`` are of another text.
    """
    pending = results.pending(trials)
    tell(f"{len(trials) - len(pending)} of {len(trials)} trials are done, {len(pending)} to go")
    if other := results.by_other_code(trials):
        tell(
            f"{other} of them are by another state of the code; delete a file to have it made anew"
        )
    if not pending:
        return
    _check_text(pending[0], protocol, results)
    results.folder.mkdir(parents=True, exist_ok=True)
    began, ended, waiting = time.monotonic(), 0, deque(pending)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare) as pool:
        running: dict[Future[dict[str, Any]], Trial] = {}
        while waiting or running:
            paused = pause_file is not None and pause_file.exists()
            while waiting and len(running) < jobs and not paused:
                trial = waiting.popleft()
                running[pool.submit(_run, trial, protocol)] = trial
            if not running:
                time.sleep(2)
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial, result = running.pop(future), future.result()
                results.write(trial, result)
                ended += 1
                left = (time.monotonic() - began) / ended * (len(pending) - ended)
                tell(
                    f"{ended}/{len(pending)} {trial.name} seed {trial.seed}: "
                    f"{result['bpb'] or math.inf:.4f} bits per byte, "
                    f"{result['cpu_seconds']:.0f} s; {left / 3600:.1f} hours to go"
                )


def _check_text(trial: Trial, protocol: Protocol, results: Results) -> None:
    """UserError where a folder's runs are of another text: they could not be summed up together."""
    text = text_of(protocol.data, trial.recipe.model.vocab_size, protocol.characters)
    if any(entry["data"] != text.digest for entry in results.all()):
        raise UserError(
            f"the runs in {results.folder} are of another text than {protocol.data}; give these a "
            "folder of their own (--out DIR)"
        )


def _prepare() -> None:
    """In each process: one thread; as nice as the command was told to be, and gone with it."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    Thread(target=_end_with_command, daemon=True).start()


def _end_with_command() -> None:
    if (command := parent_process()) is not None:
        command.join()  # a killed one tells its processes nothing
        os._exit(1)


_text = cache(text_of)


def _run(trial: Trial, protocol: Protocol) -> dict[str, Any]:
    text = _text(protocol.data, trial.recipe.model.vocab_size, protocol.characters)
    return train(trial, text, protocol.held_out_rows)
