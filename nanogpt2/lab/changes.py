"""One change at a time against the book's baseline, over several seeds: the run and its record.

What the ladder of every chapter shows. A change is a set of switches of ``GPTConfig``, or something
done to the code for the time of the run; the verdict is ``compare``'s, never an adjective of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from nanogpt2.lab.claims import table
from nanogpt2.lab.page import Html
from nanogpt2.lab.records import Record, record
from nanogpt2.lab.small_run import SmallRun, as_record, compare, small_config, small_runs

Changes = Mapping[str, Mapping[str, Any]]
Within = Mapping[str, Callable[[], AbstractContextManager[Any]]]


def record_changes(
    name: str,
    module: str,
    changes: Changes,
    within: Within,
    *,
    what: str,
    steps: int,
    depth: int,
    seeds: Sequence[int],
    device: str,
    options: str = "",
    more: Callable[[], tuple[dict[str, Any], float]] = lambda: ({}, 0.0),
) -> str:
    """Train the baseline and each change over ``seeds``, and write ``book/results``; its path.

    Args:
        name: of the record, which ends in the depth.
        module: whose ``main`` this is; the record's command names it.
        changes: name of each change -> fields of ``GPTConfig`` that differ.
        within: name of a change -> context manager around its runs.
        what: first words of the record's note.
        options: of the command, beside depth, steps, seeds and device.
        more: further results, and the seconds of the runs they took.
    """
    settings: dict[str, Any] = {"steps": steps, "device": device}
    base = small_config(depth)
    runs: dict[str, list[SmallRun]] = {"baseline": small_runs(base, seeds, **settings)}
    for change, switches in changes.items():
        config = small_config(depth, **switches)
        runs[change] = small_runs(config, seeds, within=within.get(change), **settings)
    ends = {change: [run.bpb for run in group] for change, group in runs.items()}
    found = {change: compare(ends[change], ends["baseline"]) for change in changes}
    curve = [
        {"step": point["step"], "tokens": point["tokens"]}
        | {f"bpb {n} seed {run.seed}": run.curve[i]["bpb"] for n, g in runs.items() for run in g}
        for i, point in enumerate(runs["baseline"][0].curve)
    ]
    further, seconds = more()
    first = as_record(runs["baseline"][0])
    asked = f"--depth {depth} --steps {steps} --seeds {' '.join(map(str, seeds))}{options}"
    path = record(
        f"{name}-depth{depth}",
        command=f"python -m {module} {asked} --device {device}",
        configuration={
            **first["configuration"],
            "changes": {change: dict(switches) for change, switches in changes.items()},
            "seeds": list(seeds),
        },
        seed=seeds[0],
        tokens=first["tokens"],
        seconds=seconds + sum(run.seconds for group in runs.values() for run in group),
        curve=curve,
        results={
            "bpb": ends,
            "change": {
                change: {
                    "difference": one.difference,
                    "spread": one.spread,
                    "distinguishable": one.distinguishable,
                }
                for change, one in found.items()
            },
            **further,
        },
        note=f"{what}: {depth} layers, {base.n_embd} wide, heads of {base.head_dim}, rows of "
        f"{base.sequence_len} tokens of the embedded corpus, {len(seeds)} seeds each; tokens are "
        "those of one run, seconds those of all.",
    )
    return str(path)


def record_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Options of a command that records changes: --depth, --steps, --seeds, --device."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    return parser


def changes_table(kept: Record, *names: str, caption: str = "") -> Html:
    """The recorded changes (or those named), each with difference, spread and verdict."""
    headers = ["our model, but", "bits per byte, change", "seeds spread", "verdict"]
    return table(headers, changes_rows(kept, *names), "recorded", kept, caption=caption)


def changes_rows(kept: Record, *names: str) -> list[list[str]]:
    """The recorded changes (or those named) as rows: change, difference, spread, verdict."""
    rows = []
    for name in names or kept.results["change"]:
        found = kept.results["change"][name]
        verdict = "better" if found["difference"] < 0 else "worse"
        rows.append(
            [
                name,
                f"{found['difference']:+.4f}",
                f"{found['spread']:.4f}",
                verdict if found["distinguishable"] else "not distinguishable",
            ]
        )
    return rows
