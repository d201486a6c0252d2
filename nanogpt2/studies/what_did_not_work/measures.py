"""What a null result says: what it excludes, how often one seed misleads, what time is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nanogpt2.lab.records import Record
from nanogpt2.lab.variations import effects, judged
from nanogpt2.reported import LEADERBOARD, RESIDUAL_SCALARS_BPB, VALLEYS
from nanogpt2.reporting.statistics import Comparison, seeds_needed
from nanogpt2.studies.what_did_not_work.plan import IDEAS, Idea


@dataclass(frozen=True)
class Worth:
    """One idea beside what was thought of it."""

    idea: Idea
    found: Comparison
    """bits per byte with it minus without"""
    verdict: str
    """judged with all others"""
    slower: float | None
    """seconds of a step with it over without; None where they are not recorded"""

    @property
    def sign(self) -> str:
        """-, + or 0 as of an expectation; nothing where one seed cannot tell."""
        if math.isinf(self.found.margin):
            return ""
        if not self.found.distinguishable:
            return "0"
        return "-" if self.found.difference < 0 else "+"

    @property
    def excluded(self) -> float:
        """The largest effect, of either sign, that the interval still holds."""
        return abs(self.found.difference) + self.found.margin


def tried(kept: Record) -> dict[str, Worth]:
    """Key -> what was found; of the ideas that have been run."""
    told, found, said = kept.results["found"], effects(kept), judged(kept)
    return {
        key: Worth(IDEAS[key], found[key], said[key], at.get("slower")) for key, at in told.items()
    }


def one_seed(kept: Record) -> dict[str, tuple[float, float]]:
    """Key -> how often one pair, and how often any two runs, say what the mean of all pairs says.

    A pair shares its seed; any two runs do not.
    """
    return {
        key: (
            _agree([(a, b) for a, b in zip(at["bpb_with"], at["bpb_without"], strict=True)]),
            _agree([
                (a, b)
                for i, a in enumerate(at["bpb_with"])
                for j, b in enumerate(at["bpb_without"])
                if i != j
            ]),
        )
        for key, at in kept.results["found"].items()
        if len(at["seeds"]) > 1
    }  # fmt: skip


def _agree(sides: Sequence[tuple[float, float]]) -> float:
    mean = fmean(a - b for a, b in sides)
    return fmean((a - b) * mean > 0 for a, b in sides)


def exponent() -> float:
    """k of L ~ C^-k, by the two ends of the series that was reported."""
    less, more = min(VALLEYS), max(VALLEYS)
    return math.log(VALLEYS[less].bpb / VALLEYS[more].bpb) / math.log(more / less)


def time_worth(slower: float) -> float:
    """Bits per byte that run 1 would gain by the time that steps ``slower`` by a share take."""
    bpb = LEADERBOARD["run1"].val_bpb
    return float(bpb * (1 - (1 + slower) ** -exponent()))


def shrinkage() -> tuple[float, float]:
    """(a, k): the residual scalars' reported effect as a depth^-k, by least squares of logs."""
    import numpy as np

    depth, effect = (list(side) for side in zip(*RESIDUAL_SCALARS_BPB.items(), strict=True))
    slope, start = np.polyfit(np.log(depth), np.log(np.abs(effect)), 1)
    return float(math.exp(start)), float(-slope)


def note(kept: Record, key: str) -> Mapping[str, str]:
    """A null result as one writes it down: every line from the record."""
    worth, recipe = tried(kept)[key], kept.configuration["recipe"]
    found = worth.found
    return {
        "what was changed": worth.idea.form,
        "against what": "run 1 made small, at rates that were searched for it, not for the idea",
        "model, text": f"depth {recipe['depth']}, rows of {recipe['model']['sequence_len']}, "
        f"{kept.tokens:,} tokens",
        "expected, before": f"{worth.idea.expected}: {worth.idea.because}",
        "found": f"{found.difference:+.4f} bits per byte, 95% interval {found.interval}, "
        f"{found.seeds} seeds in pairs",
        "excluded": f"an effect of more than {worth.excluded:.4f}, of either sign",
        "not excluded": "a smaller one"
        + (
            f": to see 0.001 would take {seeds_needed(0.001, found.deviation)} seeds"
            if found.seeds > 1
            else ""
        ),
        "not tried": "other rates with it, other sizes, other lengths",
        "where": "book/results/ladder, a file a run",
    }
