"""Tables of the chapter on the speedrun: plans, prices, the records and what each changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from nanogpt2.costs import record_mfu
from nanogpt2.depth import dial
from nanogpt2.machines import GB, machine_of
from nanogpt2.planning import plan
from nanogpt2.recipes import differences, get_recipe
from nanogpt2.reported import (
    GPT3_PARAMETERS,
    GPT3_TOKENS,
    LEADERBOARD,
    NODE_DOLLARS_PER_HOUR,
    RUN1_SECONDS,
    SOURCES,
)

PRICES = (
    (
        NODE_DOLLARS_PER_HOUR.date,
        "what the announcement counts with",
        float(NODE_DOLLARS_PER_HOUR),
        SOURCES[NODE_DOLLARS_PER_HOUR.key],
    ),
    ("April 2026", "RunPod, Secure Cloud", 22.32, "techplained.aptechsolutions.io"),
    ("April 2026", "Vast.ai, spot, lowest", 12.16, "techplained.aptechsolutions.io"),
    ("May 2026", "hyperscalers, from", 28.00, "mercatus-ai.com"),
    ("May 2026", "smaller providers, from", 15.92, "mercatus-ai.com"),
)
"""(when, whose, dollars an hour for 8xH100, where it was read)"""


def plan_rows(machines: Sequence[tuple[str, int]], depth: int | None = None) -> list[list[str]]:
    """Rows: machine, does it fit, rows a pass, passes a step, GB, days or hours, dollars."""
    rows = []
    for kind, devices in machines:
        found = plan("run1", depth, machine_of(kind, devices))
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
    hours = RUN1_SECONDS / 3600
    return [
        [when, whose, f"{price:.2f}", f"{price * hours:.0f}", source]
        for when, whose, price, source in PRICES
    ]


def leaderboard_rows() -> list[list[Any]]:
    """Rows: record, of how many runs, steps, FLOPs, hours, dollars, part of the peak, CORE."""
    rows = []
    for name, told in LEADERBOARD.items():
        at = dial(recipe=name)
        rows.append(
            [
                name,
                "one" if told.runs == 1 else f"mean of {told.runs}",
                f"{at.iterations:,}",
                f"{at.total_flops:.4e}",
                f"{told.hours:.2f}",
                f"{told.hours * NODE_DOLLARS_PER_HOUR:.0f}",
                f"{record_mfu(name):.1%}",
                f"{told.core:.4f}",
            ]
        )
    return rows


def change_rows() -> list[list[str]]:
    """Rows: record, how its recipe differs from the one before it, field by field."""
    rows = []
    for before, name in pairwise(LEADERBOARD):
        found = differences(get_recipe(before), get_recipe(name))
        told = [f"{setting} {was} → {now}" for setting, (was, now) in found.items()]
        rows.append([name, "; ".join(told)])
    return rows


def gpt3_hours() -> tuple[float, float]:
    """Hours of the 8xH100 node for GPT-3's FLOPs, six for each pair of parameter and token.

    At run 1's speed, and at half of it: models that do not fit a node run slower.
    """
    times = 6 * GPT3_PARAMETERS * GPT3_TOKENS / dial(recipe="run1").total_flops
    hours = times * LEADERBOARD["run1"].hours
    return hours, 2 * hours
