"""``python -m nanogpt2.studies.KEY``: a study's trials trained, several at once, and gone on with.

A list that was interrupted goes on with the trials that have no file. What ended is kept,
whatever becomes of the others.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from filelock import FileLock, Timeout

from nanogpt2.data.shards import find_shards
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.files import named_path, require_folder_place
from nanogpt2.lab.records import digest, results_folder
from nanogpt2.lab.small_data import cache_folder
from nanogpt2.lab.text import text_of
from nanogpt2.lab.trials import Protocol, Results, Trial, train


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
    parser.add_argument(
        "--pause-file", type=named_path, help="no run begins while this file exists"
    )
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
    results = Results((at.out or results_folder() / folder).resolve())
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

    UserError where the folder of ``results`` cannot be written, has runs of another text or another
    command that trains, too little text is held out, or a run was killed.
    """
    pending = results.pending(trials)
    tell(f"{len(trials) - len(pending)} of {len(trials)} trials are done, {len(pending)} to go")
    if other := results.by_other_code(trials):
        tell(
            f"{other} of them are by another state of the code; delete a file to have it made anew"
        )
    if not pending:
        return
    require_folder_place(results.folder, "the folder of the runs (--out)")
    _check_text(pending, protocol, results)
    results.folder.mkdir(parents=True, exist_ok=True)
    cache_folder().mkdir(parents=True, exist_ok=True)
    lock = cache_folder() / f"trials-{digest(str(results.folder))[:16]}.lock"  # none among records
    try:
        with FileLock(lock, timeout=0):
            _train_all(pending, protocol, results, jobs, pause_file, tell)
    except Timeout:
        raise UserError(
            f"another command trains in {results.folder}; wait for it, or give --out DIR"
        ) from None


def _train_all(
    pending: Sequence[Trial],
    protocol: Protocol,
    results: Results,
    jobs: int,
    pause_file: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Where one fails none begins any more, and those that run are waited for and kept."""
    began, done, waiting = time.monotonic(), 0, deque(pending)
    failed: BaseException | None = None
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare) as pool:
        running: dict[Future[dict[str, Any]], Trial] = {}
        while (waiting and not failed) or running:
            paused = pause_file is not None and pause_file.exists()
            while waiting and len(running) < jobs and not paused and not failed:
                trial = waiting.popleft()
                running[pool.submit(_run, trial, protocol)] = trial
            if not running:
                time.sleep(2)
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial = running.pop(future)
                if error := future.exception():
                    failed = failed or error
                    continue
                results.write(trial, result := future.result())
                done += 1
                left = (time.monotonic() - began) / done * (len(pending) - done)
                tell(
                    f"{done}/{len(pending)} {trial.name} seed {trial.seed}: "
                    f"{result['bpb'] or math.inf:.4f} bits per byte, "
                    f"{result['cpu_seconds']:.0f} s; {left / 3600:.1f} hours to go"
                )
    if isinstance(failed, BrokenProcessPool):
        raise UserError(
            "a run was killed, most likely for want of memory; what had ended is kept: go on with "
            "fewer runs at once (--jobs 1)"
        )
    if failed:
        raise failed


def _check_text(pending: Sequence[Trial], protocol: Protocol, results: Results) -> None:
    """UserError where a folder's runs are of another text, which could not be summed up together,
    or too little of it is held out: known before the first run.
    """
    text = text_of(protocol.data, pending[0].recipe.model.vocab_size, protocol.characters)
    if any(entry["data"] != text.digest for entry in results.all()):
        raise UserError(
            f"the runs in {results.folder} are of another text than {protocol.data}; give these a "
            "folder of their own (--out DIR)"
        )
    for sequence_len in {dial(recipe=trial.recipe).model.sequence_len for trial in pending}:
        text.held_out("best_fit", protocol.held_out_rows, sequence_len)


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
