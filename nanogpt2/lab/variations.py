"""Variations of the yardstick: a chapter's own questions, asked by the ladder's protocol.

The top of the ladder is trained with one thing changed, a setting or a piece of code, over several
seeds in pairs; the runs lie beside the ladder's, and each study has a record of its own, made from
them alone. What was expected of a variation stands in the code before its first run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab.claims import table
from nanogpt2.lab.page import Html
from nanogpt2.lab.records import Record, record
from nanogpt2.lab.seams import Patch
from nanogpt2.lab.step_seconds import record_step_seconds, recorded_seconds
from nanogpt2.lab.study_command import study_arguments, tell
from nanogpt2.lab.trials import (
    Results,
    Trial,
    diverged,
    ended,
    paired,
    processors,
    require_no_less,
)
from nanogpt2.recipes import get_recipe
from nanogpt2.reporting.statistics import Comparison, compare, verdicts
from nanogpt2.rungs import TOP, Ladder

FOLDER = "ladder"
"""of ``book/results``: all runs of the yardstick are in one place, and none is trained twice"""
TOLD = ("bpb", "parameters")


@dataclass(frozen=True)
class Variation:
    """One thing that is changed, and what was thought of it before it was measured."""

    title: str
    expected: str
    """sign of bits per byte with it minus without: - a gain, + a loss, 0 not distinguishable"""
    because: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of the recipe, as by ``--set``"""
    within: Callable[[], Patch] | None = None
    """how the code is changed, where no setting says it"""

    def trial(self, key: str, seed: int) -> Trial:
        """The top of the ladder with it."""
        recipe = get_recipe(Ladder().top, **self.settings)
        return Trial(f"with-{key}", recipe, seed, TOP, self.within)


Variations = Mapping[str, Variation]
"""by key"""


def trials(variations: Variations, seeds: Sequence[int]) -> list[Trial]:
    """Each seed of all variations, after the top's, before the next."""
    return [
        each
        for seed in seeds
        for each in (_top(seed), *(v.trial(key, seed) for key, v in variations.items()))
    ]


def _top(seed: int) -> Trial:
    return Trial(TOP, Ladder().top, seed)


def summarize(
    key: str, variations: Variations, seeds: Sequence[int], folder: Path
) -> dict[str, Any]:
    """The record's results, from the files in ``folder``: pairs of one seed and machine.

    What a step of each takes over the top's is of the study's seconds, where those are recorded.
    UserError where the runs were trained on different texts.
    """
    asked = {each.identity for each in trials(variations, seeds)}
    entries = [entry for entry in Results(folder).all() if entry["identity"] in asked]
    if len({entry["data"] for entry in entries}) > 1:
        raise UserError(f"the runs in {folder} were trained on different texts; keep one's")
    known, found, lost = ended(entries), dict[str, Any](), dict[str, list[int]]()
    seconds = recorded_seconds(key, folder.parent)
    for name, variation in variations.items():
        sides = [(variation.trial(name, seed), _top(seed)) for seed in seeds]
        if at := diverged(entries, sides):
            lost[name] = at
        pairs = [both for a, b in sides if (both := paired(known, a, b))]
        if pairs:
            found[name] = {"seeds": [a["seed"] for a, _ in pairs]} | {
                f"{what}_{side}": [pair[i][what] for pair in pairs]
                for what in TOLD
                for i, side in enumerate(("with", "without"))
            }
            if (with_it := f"with-{name}") in seconds:
                found[name]["slower"] = seconds[with_it] / seconds[TOP]
    return {
        "done": len({entry["identity"] for entry in entries}),
        "planned": len(asked),
        "machines": sorted({entry["machine"] for entry in entries}),
        "cpu_seconds": round(sum(entry["cpu_seconds"] for entry in entries), 1),
        "found": found,
        "diverged": lost,
    }


def record_summary(key: str, variations: Variations, seeds: Sequence[int], folder: Path) -> Path:
    """Write ``KEY.json`` beside ``folder``; its path."""
    results, top = summarize(key, variations, seeds, folder), Ladder().top
    require_no_less(key, folder.parent, results["done"])
    return record(
        key,
        command=f"python -m nanogpt2.studies.{key} --data DIR --seeds {' '.join(map(str, seeds))}",
        configuration={
            "recipe": {**top.to_dict(), "record": None},
            "variations": {
                name: {"title": v.title, "expected": v.expected, "because": v.because}
                for name, v in variations.items()
            },
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


def record_variations(
    key: str,
    what: str,
    variations: Variations,
    argv: Sequence[str] | None = None,
    **also: Callable[[Path], Path],
) -> None:
    """``python -m nanogpt2.studies.KEY``: train what is not trained yet, and write the record.

    ``--stage seconds`` times a step of each, which wants a machine that does nothing else.
    ``also``: name of a further stage -> what makes a record of its own in a folder, without text.
    """

    def seconds(beside: Path) -> Path:
        return record_step_seconds(key, trials(variations, (0,)), beside)

    also = {"seconds": seconds, **also}
    at, results, run = study_arguments(
        key, what, argv, folder=FOLDER, stages=("all", "summary", *also), untrained=also
    )
    if at.stage in also:
        tell(str(also[at.stage](results.folder.parent)))
        return
    if at.stage == "all":
        run(trials(variations, at.seeds))
    tell(str(record_summary(key, variations, at.seeds, results.folder)))


def effects(kept: Record) -> dict[str, Comparison]:
    """Each recorded variation minus the top, paired by seed."""
    return {k: compare(v["bpb_with"], v["bpb_without"]) for k, v in kept.results["found"].items()}


def judged(kept: Record) -> dict[str, str]:
    """Key -> verdict of the record's whole table, of those too of which no pair ended."""
    return verdicts(effects(kept), kept.results.get("diverged"))


def variations_table(kept: Record, caption: str = "") -> Html:
    """All variations of a record: difference, interval, verdict of the table, and expectation."""
    found, said, rows = effects(kept), kept.configuration["variations"], list[list[Any]]()
    for key, verdict in judged(kept).items():
        rows.append([said[key]["title"], "", "", "0"])
        if each := found.get(key):
            rows[-1][1:] = [f"{each.difference:+.4f}", each.interval, str(each.seeds)]
        rows[-1] += [verdict, said[key]["expected"]]
    headers = ["the yardstick, but", "bits per byte, change", "95% interval", "seeds", "verdict"]
    return table([*headers, "expected"], rows, "recorded", kept, caption=caption)
