"""A run's length by the clock: set once, after its first steps, and kept from then on.

The schedules fall towards the end of a run, so that it cannot simply be cut: the length must be
known before they begin to. What was chosen, and why, stands in ``length.json`` and in every
checkpoint that comes after. No torch: the dry run asks too. Chapter: loop.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from nanogpt2.errors import UserError
from nanogpt2.files import read_json, write_json
from nanogpt2.recipes import Recipe
from nanogpt2.run import Loop, Run
from nanogpt2.settings import Count, Natural, Scale, from_dict, settings

FILE = "length.json"
FIRST_STEPS = 20
"""before the length is set: 10 for caches and clocks to settle, and 10 that are measured"""
PLANNED = 0.9
"""part of the minutes that is planned for; the rest is for saving, and for a machine that slows"""
EVALUATION = 0.5
"""most that a token costs when it is measured, as a part of what it costs when it is learned"""


@settings
class Length:
    """How long a run is, and how that came about."""

    steps: Count
    """of the whole run"""
    asked: Count
    """steps by the recipe"""
    after: Natural
    """steps done when it was set; until then schedules and watch were those of ``asked``"""
    minutes: Scale
    """within which to end"""
    step_seconds: Scale
    """seen, as a mean"""
    tokens_per_second: Scale
    """seen, over all ranks"""
    why: str
    """in a sentence"""


def loop_of(asked: Run, steps: int) -> Loop:
    """How the loop keeps watch over the run when it has so many steps."""
    dial = asked.dial
    return asked.loop.over(replace(dial, iterations=steps, tokens=steps * dial.batch_tokens))


def holds(recipe: Recipe, after: int, steps: int) -> bool:
    """Whether rates and momentum of the first ``after`` of ``steps`` steps are not yet falling."""
    return after <= steps and after - 1 <= steps - round(recipe.warmdown_ratio * steps)


def require_steady_start(asked: Run) -> None:
    """Raise UserError where the run's own rates fall before its length could be set.

    Or where steps are to be profiled that it has not, or that measure the speed: these are slower.
    """
    steps, recipe, profiled = asked.dial.iterations, asked.recipe, asked.loop.profiled
    if asked.loop.minutes is not None and profiled and profiled[0] <= FIRST_STEPS:
        raise UserError(
            f"the first {FIRST_STEPS} steps measure the speed by which minutes sets the length, "
            f"and profiling slows them; profile later ones (--profile {FIRST_STEPS + 1}:"
            f"{FIRST_STEPS + len(profiled)})"
        )
    if asked.loop.minutes is None and profiled and profiled[-1] > steps:
        raise UserError(
            f"--profile {asked.loop.profile} goes beyond the run, which has {steps:,} steps"
        )
    if asked.loop.minutes is not None and not holds(recipe, FIRST_STEPS, steps):
        raise UserError(
            f"minutes cannot set the length of a run of {steps:,} steps at warmdown_ratio "
            f"{recipe.warmdown_ratio:g}: its rates fall before the {FIRST_STEPS} steps are over "
            "that measure the speed; leave minutes out, or raise steps (or lower warmdown_ratio)"
        )


def choose(asked: Run, after: int, spent: float, tokens_per_second: float) -> Length:
    """The length of a run that has taken ``after`` steps in ``spent`` seconds of training.

    As long as it ends within ``loop.minutes`` at that speed, what is measured on the way counted
    (bits per byte; not CORE); no longer than its recipe says where ``loop.lengthen`` is off.
    Raises UserError where the rates of so short a run would have begun to fall already.
    """
    dial, minutes = asked.dial, asked.loop.minutes or math.inf
    limit, step_seconds = PLANNED * 60 * minutes, dial.batch_tokens / tokens_per_second

    def seconds(steps: int) -> float:
        """Of a run of so many steps, from its start to its end."""
        loop = loop_of(asked, steps)
        every, tokens = loop.eval_every or 0, loop.eval_tokens or 0
        times = math.ceil(steps / every) if every > 0 else every + 1  # -1 is never
        return (
            spent
            + ((steps - after) + EVALUATION * times * tokens / dial.batch_tokens) * step_seconds
        )

    most = dial.iterations
    if asked.loop.lengthen:
        most = after + max(0, int((limit - spent) / step_seconds))
    steps = bisect_right(range(most + 1), limit, key=seconds) - 1
    least = bisect_left(range(2**60), True, key=lambda steps: holds(asked.recipe, after, steps))
    if steps < least:
        needed = math.ceil(seconds(least) / PLANNED / 6) / 10
        raise UserError(
            f"{minutes:g} minutes are too few: at {step_seconds:.3g} s a step they hold "
            f"{max(0, steps):,} steps, and the run needs {least:,}, or its rates would have fallen "
            f"before the {after} steps that measured the speed; give minutes={needed:g} or more"
        )
    seen = f"at {step_seconds:.3g} s a step ({tokens_per_second:,.0f} tokens a second)"
    own = f"the recipe's {dial.iterations:,} steps take about {seconds(dial.iterations) / 60:,.1f}"
    if steps == dial.iterations:
        why = f"{steps:,} steps, as the recipe says: {seen} they end within {minutes:g} minutes"
    else:
        why = f"{steps:,} steps, to end within {minutes:g} minutes: {seen} {own} minutes"
    return Length(
        steps, dial.iterations, after, minutes, step_seconds, float(tokens_per_second), why
    )


def set_length(asked: Run, after: int, spent: float, tokens_per_second: float) -> Length:
    """``choose``, and ``write`` it down before the next step."""
    made = choose(asked, after, spent, tokens_per_second)
    write(asked, made)
    return made


def write(asked: Run, length: Length | None) -> None:
    """Leave it in the run's folder, with what the run is; None: take away another run's."""
    if length is None:
        (asked.out / FILE).unlink(missing_ok=True)
    else:
        record = {"length": asdict(length), "identity": asked.identity()}
        write_json(asked.out / FILE, record)


def known(asked: Run, state: Mapping[str, Any]) -> Length | None:
    """What was set, by a checkpoint's ``state`` ({} where there is none) or the run's folder."""
    record, path = state.get("length"), asked.out / FILE
    if record is None and path.is_file():
        left = read_json(path, "delete it, and the length is set anew")
        if isinstance(left, dict) and left.get("identity") == asked.identity():
            record = left.get("length")
    return None if record is None else from_dict(Length, record, f"the record in {FILE}")


def is_open(state: Mapping[str, Any]) -> bool:
    """Whether nothing was learned, or only while the speed was measured, by the last ``state``."""
    return not state or state.get("length", 0) is None
