"""One change at a time against the book's baseline, over several seeds: the run and its record.

Short runs, which show how a part works; what it is worth is for the ladder's record to say. A
change is a set of switches of ``GPTConfig``, or something done to the code for the time of the run;
the verdict is ``compare``'s, never an adjective of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from nanogpt2.errors import run_command
from nanogpt2.lab.claims import table
from nanogpt2.lab.page import Html
from nanogpt2.lab.records import Record, record
from nanogpt2.lab.small_run import SmallRun, small_config, small_runs
from nanogpt2.reporting.statistics import Comparison, compare, verdicts

Within = Mapping[str, Callable[[], AbstractContextManager[Any]]]
More = Callable[[argparse.Namespace], tuple[dict[str, Any], float]]


def asked_for(
    key: str, what: str, argv: Sequence[str] | None = None, **options: int
) -> tuple[argparse.Namespace, str]:
    """What ``python -m nanogpt2.studies.KEY`` was given, and the command that says all of it.

    ``options`` are whole-number options with their defaults, beside ``depth`` and ``steps``;
    ``seeds`` and ``device`` come of themselves.
    """
    module = f"nanogpt2.studies.{key}"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Record: {what}.")
    numbers = {"depth": 4, "steps": 240, **options}
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    at = parser.parse_args(argv)
    chosen = [f"--{name.replace('_', '-')} {getattr(at, name)}" for name in numbers]
    chosen += [f"--seeds {' '.join(map(str, at.seeds))}", f"--device {at.device}"]
    return at, f"python -m {module} {' '.join(chosen)}"


def record_changes(*arguments: Any, **settings: Any) -> NoReturn:
    """``record_command`` as a command: it prints the record's path."""
    run_command(lambda: print(record_command(*arguments, **settings)))


def record_command(
    key: str,
    changes: Mapping[str, Mapping[str, Any]],
    within: Within,
    *,
    what: str,
    more: More | None = None,
    argv: Sequence[str] | None = None,
    **options: int,
) -> Path:
    """``python -m nanogpt2.studies.KEY``: baseline and each change over seeds; the record's path.

    Args:
        key: of the chapter; the record is ``KEY-depthN``.
        changes: name of each change -> fields of ``GPTConfig`` that differ.
        within: name of a change -> context manager around its runs.
        what: first words of the record's note.
        more: what else to measure; given the command's options, returns results and the seconds
            of the runs they took.
        options: further whole-number options of the command, with their defaults.
    """
    at, command = asked_for(key, what, argv, **options)
    settings: dict[str, Any] = {"seeds": at.seeds, "steps": at.steps, "device": at.device}
    groups = {"baseline": small_runs(small_config(at.depth), **settings)}
    for change, switches in changes.items():
        config = small_config(at.depth, **switches)
        groups[change] = small_runs(config, within=within.get(change), **settings)
    further, seconds = more(at) if more else ({}, 0.0)
    return record_groups(
        f"{key}-depth{at.depth}",
        command,
        groups,
        what=what,
        seconds=seconds,
        configuration={"changes": {change: dict(switches) for change, switches in changes.items()}},
        results=further,
    )


def record_groups(
    name: str,
    command: str,
    groups: Mapping[str, Sequence[SmallRun]],
    *,
    what: str,
    configuration: Mapping[str, Any],
    results: Mapping[str, Any],
    seconds: float = 0.0,
) -> Path:
    """Write runs of the same length, some seeds of each, to ``book/results``; the record's path.

    The first group's configuration is the record's, with ``configuration`` added; ``results`` come
    after the bits per byte at each end, and ``seconds`` are added to those of the runs.
    """
    runs = [(group, run) for group, found in groups.items() for run in found]
    first, config = runs[0][1], runs[0][1].config
    seeds = [run.seed for run in next(iter(groups.values()))]
    return record(
        name,
        command=command,
        configuration={
            "config": config.to_dict(),
            "recipe": {**first.recipe.to_dict(), "record": None},
            "steps": first.steps,
            "batch_size": first.batch_size,
            **configuration,
            "seeds": seeds,
        },
        seed=first.seed,
        tokens=first.tokens,
        seconds=seconds + sum(run.seconds for _, run in runs),
        curve=[
            {"step": point["step"], "tokens": point["tokens"]}
            | {f"bpb {group} seed {run.seed}": run.curve[i]["bpb"] for group, run in runs}
            for i, point in enumerate(first.curve)
        ],
        results={
            "bpb": {group: [run.bpb for run in found] for group, found in groups.items()},
            **results,
        },
        note=f"{what}: {config.n_layer} layers, {config.n_embd} wide, heads of {config.head_dim}, "
        f"rows of {config.sequence_len} tokens of the embedded corpus, {len(seeds)} seeds each; "
        "tokens are those of one run, seconds those of all.",
    )


def effects(kept: Record, *names: str) -> dict[str, Comparison]:
    """Each recorded change (or those named) minus the baseline, paired by seed."""
    ends = kept.results["bpb"]
    chosen = names or kept.configuration["changes"]
    return {name: compare(ends[name], ends["baseline"]) for name in chosen}


def changes_table(kept: Record, *names: str, caption: str = "") -> Html:
    """The recorded changes (or those named), each with difference, interval and verdict."""
    headers = ["our model, but", "bits per byte, change", "95% interval", "verdict"]
    return table(headers, changes_rows(kept, *names), "recorded", kept, caption=caption)


def changes_rows(kept: Record, *names: str) -> list[list[str]]:
    """The recorded changes (or those named) as rows, judged together."""
    found = effects(kept, *names)
    said = verdicts(found)
    return [[n, f"{c.difference:+.4f}", c.interval, said[n]] for n, c in found.items()]
