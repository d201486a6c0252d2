"""From the runs' files to one record: each idea's pairs by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab.records import record
from nanogpt2.lab.trials import Results, Trial, ended, paired, processors
from nanogpt2.rungs import TOP, Ladder
from nanogpt2.studies.what_did_not_work.plan import IDEAS, trial, trials

TOLD = ("bpb", "cpu_seconds", "parameters")


def summarize(seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """The record's results, from the files in ``folder`` alone: pairs of one seed and machine."""
    asked = {each.identity for each in trials(seeds)}
    entries = [entry for entry in Results(folder).all() if entry["identity"] in asked]
    if len({entry["data"] for entry in entries}) > 1:
        raise UserError(f"the runs in {folder} were trained on different texts; keep one's")
    known, found = ended(entries), dict[str, Any]()
    for key in IDEAS:
        sides = ((trial(key, seed), Trial(TOP, Ladder().top, seed)) for seed in seeds)
        pairs = [both for a, b in sides if (both := paired(known, a, b))]
        if pairs:
            found[key] = {"seeds": [a["seed"] for a, _ in pairs]} | {
                f"{name}_{side}": [pair[i][name] for pair in pairs]
                for name in TOLD
                for i, side in enumerate(("with", "without"))
            }
    return {
        "done": len({entry["identity"] for entry in entries}),
        "planned": len(asked),
        "machines": sorted({entry["machine"] for entry in entries}),
        "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in entries), 1),
        "ideas": found,
    }


def record_summary(seeds: Sequence[int], folder: Path) -> Path:
    """Write ``what_did_not_work.json`` beside ``folder``; its path."""
    results, top = summarize(seeds, folder), Ladder().top
    return record(
        "what_did_not_work",
        command="python -m nanogpt2.studies.what_did_not_work --data DIR --seeds "
        f"{' '.join(map(str, seeds))}",
        configuration={
            "recipe": {**top.to_dict(), "record": None},
            "ideas": {key: idea.form for key, idea in IDEAS.items()},
            "seeds": list(seeds),
        },
        seed=0,
        tokens=dial(recipe=top).tokens,
        seconds=results["cpu_seconds"],
        curve=[],
        results=results,
        note=f"{results['done']} of {results['planned']} runs; tokens are those of one run, "
        "seconds those of all and of a core",
        device=processors(results["machines"]),
        folder=folder.parent,
    )
