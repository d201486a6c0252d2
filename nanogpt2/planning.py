"""Will it fit, how long, how much money and energy: before a cent is spent.

Arithmetic only, by ``memory`` and ``costs``; torch is needed just to look at this machine, and to
time a few steps where it is a processor. Chapter: speedrun.

    python -m nanogpt2.planning --recipe run1 --machine H100 --devices 8
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nanogpt2.costs import assumed_mfu, energy_kwh, training_seconds
from nanogpt2.depth import Batch, Dial, dial
from nanogpt2.errors import UserError, run_command
from nanogpt2.fitting import Room, deepest
from nanogpt2.machines import (
    GB,
    Machine,
    machine_of,
    precision_of_products,
    this_machine,
)
from nanogpt2.memory import SHARD_BYTES, Memory, shards_needed
from nanogpt2.outlook import describe, duration
from nanogpt2.recipes import RECIPES, Recipe, get_recipe
from nanogpt2.run import Loop, Run, add_set, assignments
from nanogpt2.settings import override
from nanogpt2.training.pace import step_seconds

if TYPE_CHECKING:  # it needs torch
    from nanogpt2.training.ranks import Ranks

CLOSE = 0.97
"""a peak up to this part of what is free is let be"""
WAIT_SECONDS = 60.0
"""how long ranks that have just met wait for each other's answer"""
DAY, HOUR = 24 * 3600, 3600
HOURS_ALONE, HOURS_OF_A_NODE = 2.0, 4.0
"""what starts unasked takes no longer, on one device and on several"""
RECOMPUTED = 3 / 4
"""model FLOPs over those done where every forward pass is done twice: 1 + 2 of 1 + 1 + 2"""
TOKENS_OF_A_RANK = 1024
"""a step's tokens below which exchanging gradients costs a processor's rank more than it gains"""
GUESS = "the speed of a processor is a guess, good to a factor of two or three"


@dataclass(frozen=True)
class Plan:
    """What a run would take."""

    recipe: str
    machine: Machine
    dial: Dial
    fits: bool
    reasons: tuple[str, ...]
    """why not; empty where it fits"""
    notes: tuple[str, ...]
    """what else to know"""
    device_batch_size: int
    """rows per forward pass on one device"""
    accumulation: int
    """forward and backward passes per step"""
    memory: Memory
    """of the fullest rank"""
    data_bytes: int
    """estimate of what is downloaded"""
    checkpoint_bytes: int
    """of those that are kept, the best among them, and of one that is being written"""
    precision: str
    """what products will run in: fp8, bf16, fp32"""
    mfu: float
    """assumed part of the peak arithmetic"""
    seconds: float | None
    """of training, evaluation and preparation left out; None where no peak is known"""
    dollars: float | None
    """for those seconds; None where no price is known"""
    kwh: float | None
    """at most: devices and the machine around them at their rated power"""
    step_seconds: float | None = None
    """of a step, where it was measured rather than reckoned by the peak"""

    @property
    def depth(self) -> int:
        """Layers."""
        return self.dial.depth

    @property
    def disk_bytes(self) -> int:
        """Estimate: data and checkpoints."""
        return self.data_bytes + self.checkpoint_bytes


def plan(
    recipe: str | Recipe,
    depth: int | None,
    machine: Machine,
    *,
    mfu: float | None = None,
    loop: Loop = Loop(),  # noqa: B008 (frozen)
    forced: bool = False,
    most_rows: int | None = None,
) -> Plan:
    """What ``recipe`` at ``depth`` (None: its own) takes on ``machine``.

    Args:
        recipe: a name, or a recipe of your own.
        depth: layers.
        machine: from ``machines.machine_of`` or ``machines.this_machine``.
        mfu: part of the peak arithmetic to reckon with; None: ``assumed_mfu``, and of that three
            quarters where forward passes are done twice.
        loop: ``recompute``, ``compile`` and ``keep_last`` count.
        forced: the recipe's precision was asked for by name.
        most_rows: of a forward pass, asked for by name; None: the recipe's, and on a GPU more where
            they fit.

    Raises:
        UserError: an unknown recipe, a depth below 1, an mfu that is no part.
    """
    recipe = get_recipe(recipe)
    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"mfu is {mfu}; it is a part of the peak, above 0 and at most 1")
    resolved = dial(depth, recipe)
    recompute = loop.recompute == "on"
    if mfu is None:
        mfu = assumed_mfu(recipe, machine) * (RECOMPUTED if recompute else 1)
    precision = precision_of_products(recipe.precision, forced, machine.native)
    room = Room(recipe, machine, precision, loop.compile != "off", recompute)
    batch, memory, reasons = room.fit(resolved, most_rows)
    seconds = dollars = kwh = None
    peak = machine.peak_flops
    if recipe.precision == "fp32" and machine.peak_fp32 is not None:
        peak = machine.peak_fp32
    if peak is not None:
        seconds = training_seconds(resolved.total_flops, mfu, machine.devices, peak)
        kwh = energy_kwh(machine, seconds)
        if machine.dollars_per_hour is not None:
            dollars = machine.dollars_per_hour * seconds / 3600
    return Plan(
        recipe=recipe.name,
        machine=machine,
        dial=resolved,
        fits=not reasons,
        reasons=tuple(reasons),
        notes=(
            *_notes(recipe, machine, precision, recompute, mfu),
            *_in_a_day(resolved, recipe, seconds),
        ),
        device_batch_size=batch.rows,
        accumulation=batch.passes,
        memory=memory,
        data_bytes=_data_bytes(resolved, recipe),
        checkpoint_bytes=(loop.keep_last + 2)
        * (memory.parameters + machine.devices * memory.optimizer),
        precision=precision,
        mfu=mfu,
        seconds=seconds,
        dollars=dollars,
        kwh=kwh,
    )


def measured(made: Plan, recipe: Recipe) -> Plan:
    """The same plan by a few steps of the run, where this processor takes them in no time."""
    if not made.machine.is_processor or not made.fits:
        return made
    batch = Batch(made.device_batch_size, made.accumulation, made.dial.batch_tokens)
    step = step_seconds(recipe, made.precision, batch, made.machine.devices)
    if step is None:
        return made
    seconds = step * made.dial.iterations
    return replace(
        made,
        step_seconds=step,
        seconds=seconds,
        kwh=energy_kwh(made.machine, seconds),
        notes=tuple(note for note in made.notes if note != GUESS),
    )


def as_found(made: Plan, run: Run, ranks: Ranks) -> Plan:
    """The same plan for GPUs of which something else holds a part: by the memory that is free now.

    All ranks call it, and get the same. Raises UserError where they are not what was planned for.
    """
    planned, found = made.machine, (ranks.world_size, ranks.device.type)
    if found != (planned.devices, planned.device):
        raise UserError(
            f"the plan is for {planned.describe()}, and the run has {found[0]} processes on "
            f"{found[1]}; name the device (--device), and start one process for each"
        )
    if not planned.is_gpu:
        return made
    import torch

    mine = torch.cuda.mem_get_info(ranks.device)[0]
    free = ranks.gather(ranks.fresh_key(), mine, WAIT_SECONDS)
    least = ranks.share(lambda: min(free))
    if made.memory.peak <= CLOSE * least:
        return made
    room = Room(
        run.recipe,
        replace(planned, memory_bytes=least),
        made.precision,
        run.loop.compile != "off",
        run.loop.recompute == "on",
    )
    batch, memory, reasons = room.fit(made.dial, made.device_batch_size)
    return replace(
        made,
        machine=room.machine,
        fits=not reasons,
        reasons=tuple(reasons),
        device_batch_size=batch.rows,
        accumulation=batch.passes,
        memory=memory,
        notes=(*made.notes, f"of a device's memory {least / GB:.1f} GB are free"),
    )


def _notes(
    recipe: Recipe, machine: Machine, precision: str, recompute: bool, mfu: float
) -> Iterator[str]:
    if precision != recipe.precision:
        how = ", the loss scaled and the masters in fp32" if precision == "fp16" else ""
        yield (
            f"{machine.kind} has no {recipe.precision} products; they will run in {precision}{how}"
        )
    if recompute:
        yield "forward passes are done twice (recompute): about a third more arithmetic"
    if machine.peak_flops is None:
        yield f"the peak arithmetic of {machine.kind} is not known here, so neither is the time"
    elif machine.is_processor:
        yield GUESS
    elif machine.kind not in ("H100", "H200", "H800"):
        yield f"no run was recorded on {machine.kind}; the time assumes {mfu:.0%} of peak"


def _in_a_day(resolved: Dial, recipe: Recipe, seconds: float | None) -> Iterator[str]:
    """For those who have one card: how deep a model takes a day, where this one takes several."""
    if seconds is None or seconds < 2 * DAY or recipe.iterations is not None:
        return

    def less(depth: int) -> float:
        return seconds * dial(depth, recipe).total_flops / resolved.total_flops

    if depth := deepest(resolved.depth, recipe, lambda depth: less(depth) <= DAY):
        yield f"depth {depth} would take about {duration(less(depth))}"


def _data_bytes(resolved: Dial, recipe: Recipe) -> int:
    shards = shards_needed(recipe.data, resolved.tokens)
    return (shards + (shards > 0)) * SHARD_BYTES  # and validation


def processor_ranks(at: Dial, cores: int) -> int:
    """How many processes share a processor's cores best.

    Threads of one process wait for each other thousands of times a second, and on a machine that
    does other things each such wait may cost a time slice; ranks wait once a step. So: as many
    ranks as there are cores, while the step's rows can be dealt out and each rank has enough to do
    (``python -m benchmarks.busy``).
    """
    rows = at.batch_tokens // at.model.sequence_len
    counts = range(1, min(cores, at.batch_tokens // TOKENS_OF_A_RANK) + 1)
    usable = [n for n in counts if rows % n == 0] or [1]
    return max(usable, key=lambda n: (n * (cores // n), n))


def recipe_for(
    machine: Machine, seconds: float | None = None, at_any_price: bool = False
) -> tuple[Recipe, str]:
    """The recipe for this machine, and a sentence on why.

    On GPUs the record that fits and reaches GPT-2's score in the least planned time, if that is at
    most ``seconds`` (None: ``most_seconds``); else a model of the quickest record's kind, as deep
    as fits and ends within them. ``at_any_price``: the time does not count.
    """
    if not machine.is_gpu:
        return get_recipe("laptop"), ""
    if (dealt := 2 ** (machine.devices.bit_length() - 1)) < machine.devices:
        # the records' batches are powers of two, and so is what each GPU can take of them
        recipe, why = recipe_for(machine.with_devices(dealt), seconds, at_any_price)
        listed = ",".join(map(str, range(dealt)))
        return recipe, f"{why}; {dealt} of the GPUs can share it: CUDA_VISIBLE_DEVICES={listed}"
    limit = math.inf if at_any_price else seconds or most_seconds(machine)
    plans = [plan(recipe, None, machine) for recipe in RECIPES.values() if recipe.record]
    plans.sort(key=lambda made: made.seconds or made.dial.total_flops)  # the peak may be unknown
    first = next((made for made in plans if made.fits), None)
    if first and (first.seconds or 0) <= limit:
        return get_recipe(first.recipe), (
            f"{first.recipe} is the record that reaches GPT-2's score soonest here"
        )
    quickest = first or plans[0]
    recipe, long = get_recipe(quickest.recipe), f"its own depth, {quickest.depth}, "
    long += f"would take {_cost(quickest)}" if first else "does not fit"
    for depth in range(quickest.depth - 2, 3, -2):
        made = plan(recipe, depth, machine)
        if made.fits and (made.seconds or 0) <= limit:
            within = "fits" if at_any_price else f"ends within {duration(limit)}"
            why = f"{recipe.name} is the quickest record, and at depth {depth} it {within}; {long}"
            return replace(recipe, depth=depth), why
    return get_recipe("laptop"), f"{recipe.name} is the quickest record here; {long}"


def most_seconds(machine: Machine) -> float:
    """How long a run may take that was not asked for by name."""
    return HOUR * (HOURS_ALONE if machine.devices == 1 else HOURS_OF_A_NODE)


def why_ask(made: Plan) -> str | None:
    """Why a run that was not asked for by name should not start unasked; None where it may."""
    name, limit = f"{made.recipe} at depth {made.depth}", most_seconds(made.machine)
    if not made.machine.is_gpu or (made.seconds or math.inf) <= limit:
        return None
    return (
        f"{name} would take {_cost(made)} on {made.machine.describe()}, and what starts unasked "
        f"takes at most {duration(limit)}; ask for it by name (--recipe {made.recipe}), or with "
        "--yes, or give it as long as you like (--minutes)"
    )


def _cost(made: Plan) -> str:
    """Planned time, and money where a price is known."""
    if made.seconds is None:
        return "nobody knows how long"
    price = "" if made.dollars is None else f" and ${made.dollars:,.2f}"
    return f"about {duration(made.seconds)}{price}"


def _machine(arguments: argparse.Namespace) -> Machine:
    kind, devices = arguments.machine, arguments.devices
    if kind == "mps" and arguments.memory is not None:  # somebody's, not this machine's
        machine = Machine("mps", 1, GB, peak_flops=None, bf16=False)
    elif kind in ("auto", "cpu", "cuda", "mps"):
        machine = this_machine(kind)
        if devices is not None:
            machine = machine.with_devices(devices)
    else:
        machine = machine_of(kind, 1 if devices is None else devices)
    if arguments.memory is not None:
        if not math.isfinite(arguments.memory * GB):
            raise UserError(f"--memory is {arguments.memory}; give the GB of each device")
        machine = replace(machine, memory_bytes=int(arguments.memory * GB))
    if arguments.dollars_per_hour is not None:
        machine = replace(machine, dollars_per_hour=arguments.dollars_per_hour)
    return machine


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 where the run does not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.planning",
        description="Will it fit, how long, how much money and energy.",
    )
    add = parser.add_argument
    add("--recipe", help=f"{', '.join(RECIPES)} (default: what speedrun would choose)")
    add("--depth", help="layers (default: the recipe's)")
    add_set(parser)
    add("--machine", default="auto", help="auto, cpu, mps, or an accelerator such as H100 or T4")
    add("--devices", type=int, help="how many of them (default: 1, or what is here)")
    add("--memory", type=float, help="GB of each device (default: as it comes)")
    add("--dollars-per-hour", type=float, help="price of the whole machine")
    add("--mfu", type=float, help="part of the peak arithmetic to reckon with, such as 0.4")
    add("--device-batch-size", help="most rows per forward pass (default: the recipe's)")
    add("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    machine = _machine(arguments)
    recipe, why = get_recipe(arguments.recipe or "laptop"), ""
    if arguments.recipe is None:
        recipe, why = recipe_for(machine)
    named = assignments(arguments)
    own = ("recompute", "compile", "keep_last")
    loop = override(Loop(), {name: named.pop(name) for name in own if name in named})
    recipe, forced = override(recipe, named), "precision" in named
    most_rows = recipe.device_batch_size if "device_batch_size" in named else None
    more: dict[str, Any] = {"loop": loop, "forced": forced, "most_rows": most_rows}
    made = plan(recipe, None, machine, mfu=arguments.mfu, **more)
    if why:
        made = replace(made, notes=(why, *made.notes))
    if arguments.mfu is None:
        made = measured(made, recipe)
    if arguments.json:
        print(json.dumps(asdict(made), indent=2))
    else:
        for name, value in describe(made):
            print(f"{name:<12}{value}")
    return 0 if made.fits else 1


if __name__ == "__main__":
    run_command(main)
