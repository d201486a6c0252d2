"""How far a training is from a healthy one, number by number, in units of luck."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from nanogpt2.studies.failure_clinic.cases import SEEDS, Patient
from nanogpt2.studies.failure_clinic.measures import MENU, examined
from nanogpt2.studies.failure_clinic.runs import Setting, Training, train

LIT = 3.0
"""units from which on a number stands out"""
PART = 50
"""a unit is at least the healthy value, or 1 where that is less, over this"""


def signs(run: Training, found: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a training: what one sees, then what one can buy."""
    loss, held = run.end("loss"), run.held_out[-1][1]
    seen = {"training loss": loss, "held-out loss": held, "held out minus training": held - loss}
    return {**seen, **{MENU[key].name: value for key, value in found.items()}}


def healthy_spread(steps: int, seed: int) -> dict[str, float]:
    """Standard deviation of each sign over healthy trainings of several seeds."""
    runs = [train(Setting(), steps, seed + i) for i in range(SEEDS)]
    found = [signs(run, examined(run)) for run in runs]
    return {sign: statistics.stdev(one[sign] for one in found) for sign in found[0]}


def distance(here: float, well: float, spread: float) -> float:
    """How far ``here`` is from ``well``, in units of luck."""
    return abs(here - well) / max(spread, max(abs(well), 1.0) / PART)


def signatures(patients: Sequence[Patient], spread: Mapping[str, float]) -> dict[str, list[float]]:
    """Each sign's distance from the healthy training, case by case."""
    pairs = [(signs(p.training, p.here), signs(p.healthy, p.well)) for p in patients]
    return {
        sign: [distance(here[sign], well[sign], unit) for here, well in pairs]
        for sign, unit in spread.items()
    }
