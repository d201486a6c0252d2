"""Tables of the chapter on the speedrun: plans, prices, the records and what each changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nanogpt2.costs import RECORD_DEVICES, record_mfu
from nanogpt2.depth import dial
from nanogpt2.machines import GB, machine_of
from nanogpt2.planning import plan
from nanogpt2.recipes import get_recipe
from nanogpt2.reported import (
    GPT3_PARAMETERS,
    GPT3_TOKENS,
    NODE_DOLLARS_PER_HOUR,
    RUN1_SECONDS,
    SOURCES,
)

RECORDS = ("run1", "run2", "run3", "run4", "run5", "run6")
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


def plan_rows(
    machines: Sequence[tuple[str, int]], recipe: str = "run1", depth: int | None = None
) -> list[list[str]]:
    """Rows: machine, does it fit, rows a pass, passes a step, GB, days or hours, dollars."""
    rows = []
    for kind, devices in machines:
        found = plan(recipe, depth, machine_of(kind, devices))
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
    for name in RECORDS:
        recipe = get_recipe(name)
        at, told = dial(recipe=recipe), recipe.record
        assert told is not None
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


def changes_of(name: str) -> list[str]:
    """How a record's recipe differs from the one before it, field by field."""
    before = get_recipe(RECORDS[RECORDS.index(name) - 1]).to_dict()
    return list(_differences(before, get_recipe(name).to_dict()))


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    for key, value in new.items():
        if key in ("name", "summary", "record"):
            continue
        where, was = f"{path}{key}", old.get(key)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, f"{where}.")
        elif value != was:
            yield f"{where} {was} → {value}"


def change_rows() -> list[list[str]]:
    """Rows: record, what its recipe changed."""
    return [[name, "; ".join(changes_of(name))] for name in RECORDS[1:]]


def peak_share(name: str) -> float:
    """FLOP/s of a record on each GPU."""
    told = get_recipe(name).record
    assert told is not None
    return dial(recipe=get_recipe(name)).total_flops / (told.hours * 3600 * RECORD_DEVICES)


def gpt3_hours(low: float = 0.5, high: float = 1.0) -> tuple[float, float]:
    """Hours of the 8xH100 node for GPT-3's FLOPs, six for each pair of parameter and token.

    At run 1's speed times ``high``, and times ``low``: models that do not fit a node run slower.
    """
    flops = 6 * GPT3_PARAMETERS * GPT3_TOKENS
    speed = peak_share("run1") * RECORD_DEVICES
    return flops / (speed * high) / 3600, flops / (speed * low) / 3600
