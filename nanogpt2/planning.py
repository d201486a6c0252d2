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

from nanogpt2 import reported
from nanogpt2.costs import (
    assumed_mfu,
    energy_kwh,
    training_seconds,
)
from nanogpt2.depth import Batch, Dial, dial, shape_batch
from nanogpt2.errors import UserError, run_command
from nanogpt2.machines import (
    GB,
    Machine,
    machine_of,
    precision_of_products,
    processor,
    this_machine,
)
from nanogpt2.memory import Memory, memory_per_rank
from nanogpt2.outlook import describe, duration
from nanogpt2.recipes import RECIPES, Recipe, get_recipe
from nanogpt2.run import Loop, add_set, assignments
from nanogpt2.settings import override
from nanogpt2.training.pace import step_seconds

LOGIT_BYTES = 5
"""of a table of all logits and their gradients, compiled: 5 GB at 2^15 tokens and classes"""
DAY = 24 * 3600
RECOMPUTED = 3 / 4
"""model FLOPs over those done where every forward pass is done twice: 1 + 2 of 1 + 1 + 2"""
TOKENS_OF_A_RANK = 1024
"""a step's tokens below which exchanging gradients costs a processor's rank more than it gains"""
GUESS = "the speed of a processor is a guess, good to a factor of two or three"
USABLE = 0.92
"""part of a device's memory that is ours; the driver and fragmentation take the rest"""
SHARD_BYTES = int(reported.SHARD_BYTES)
TOKENS_PER_SHARD = {
    "fineweb-edu": int(
        reported.SHARD_CHARACTERS / reported.CHARACTERS_PER_TOKEN * (1 - reported.CROPPED)
    ),
    "climbmix": int(dial(recipe="run4").tokens / reported.CLIMBMIX_SHARDS),
}
"""that reach the model, about: a shard's characters over those of a token, less what packing crops
away; of ClimbMix, what run 4 took from the shards that it read"""


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
    disk_bytes: int
    """estimate: data and two checkpoints"""
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


def plan(
    recipe: str | Recipe,
    depth: int | None,
    machine: Machine,
    *,
    mfu: float | None = None,
    recompute: bool = False,
    forced: bool = False,
) -> Plan:
    """What ``recipe`` at ``depth`` (None: its own) takes on ``machine``.

    Args:
        recipe: a name, or a recipe of your own.
        depth: layers.
        machine: from ``machines.machine_of`` or ``machines.this_machine``.
        mfu: part of the peak arithmetic to reckon with; None: ``assumed_mfu``, and of that three
            quarters where forward passes are done twice.
        recompute: as the loop's setting of that name.
        forced: the recipe's precision was asked for by name.

    Raises:
        UserError: an unknown recipe, a depth below 1, an mfu that is no part.
    """
    recipe = get_recipe(recipe)
    if mfu is not None and not 0 < mfu <= 1:
        raise UserError(f"mfu is {mfu}; it is a part of the peak, above 0 and at most 1")
    resolved = dial(depth, recipe)
    if mfu is None:
        mfu = assumed_mfu(recipe, machine) * (RECOMPUTED if recompute else 1)
    precision = precision_of_products(recipe.precision, forced, machine.native)
    batch, memory, reasons = _fit(resolved, recipe, machine, precision, recompute)
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
            *_notes(recipe, machine, precision, recompute),
            *_in_a_day(resolved, recipe, seconds),
        ),
        device_batch_size=batch.rows,
        accumulation=batch.passes,
        memory=memory,
        disk_bytes=_disk_bytes(resolved, recipe, memory, machine.devices),
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


def _memory(
    at: Dial, recipe: Recipe, machine: Machine, rows: int, precision: str, recompute: bool
) -> Memory:
    """Of a device that takes ``rows`` rows a pass."""
    half, tables = precision != "fp32", precision in ("bf16", "fp8") and not machine.is_processor
    held = memory_per_rank(at.model, recipe, machine.devices, rows, half, tables, recompute)
    if precision == "fp8":  # the head in fp8 has all logits at once
        logits = rows * at.model.sequence_len * at.model.padded_vocab_size
        held = replace(held, activations=held.activations + LOGIT_BYTES * logits)
    return held


def _fit(
    resolved: Dial, recipe: Recipe, machine: Machine, precision: str, recompute: bool
) -> tuple[Batch, Memory, list[str]]:
    """The batch by the most rows that fit, the memory they take, and why it does not fit."""
    model, tokens = resolved.model, resolved.batch_tokens

    def memory(rows: int) -> Memory:
        return _memory(resolved, recipe, machine, rows, precision, recompute)

    most, usable = recipe.device_batch_size, USABLE * machine.memory_bytes
    reasons: list[str] = []
    try:
        batch = shape_batch(tokens, model.sequence_len, machine.devices, most)
        while batch.rows > 1 and memory(batch.rows).peak > usable:
            batch = shape_batch(tokens, model.sequence_len, machine.devices, batch.rows - 1)
    except UserError as error:
        reasons.append(f"{error}, or other devices")
        batch = Batch(rows=1, passes=1, tokens=tokens)
    needed = memory(batch.rows)
    if needed.peak > usable:
        reasons.append(
            f"one row at a time needs {needed.peak / GB:.1f} GB and a device has "
            f"{usable / GB:.1f} GB to give; "
            + _cure(resolved, recipe, machine, precision, recompute)
        )
    return batch, needed, reasons


def _cure(resolved: Dial, recipe: Recipe, machine: Machine, precision: str, recompute: bool) -> str:
    """What would fit, where one row at a time does not."""
    usable = USABLE * machine.memory_bytes
    again = _memory(resolved, recipe, machine, 1, precision, recompute=True).peak
    if not recompute and again <= usable:
        return f"with --set recompute=on it needs {again / GB:.1f} GB"
    for depth in range(resolved.depth - 1, 0, -1):
        smaller = dial(depth, recipe)
        if _memory(smaller, recipe, machine, 1, precision, recompute).peak <= usable:
            return f"choose a smaller depth (--depth {depth} fits), or devices with more memory"
    return "choose a smaller model (--recipe laptop), or devices with more memory"


def _notes(recipe: Recipe, machine: Machine, precision: str, recompute: bool) -> Iterator[str]:
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
        assumed = assumed_mfu(recipe, machine)
        yield f"no run was recorded on {machine.kind}; the time assumes {assumed:.0%} of peak"


def _in_a_day(resolved: Dial, recipe: Recipe, seconds: float | None) -> Iterator[str]:
    """For those who have one card: how deep a model takes a day, where this one takes several."""
    if seconds is None or seconds < 2 * DAY or recipe.iterations is not None:
        return
    for depth in range(resolved.depth - 1, 0, -1):
        less = seconds * dial(depth, recipe).total_flops / resolved.total_flops
        if less <= DAY:
            yield f"depth {depth} would take about {duration(less)}"
            return


def shards_needed(data: str, tokens: int) -> int:
    """Training shards of a downloaded data set that hold so many tokens; 0 without a download."""
    held = TOKENS_PER_SHARD.get(data)
    return math.ceil(tokens / held) if held else 0


def _disk_bytes(resolved: Dial, recipe: Recipe, memory: Memory, ranks: int) -> int:
    shards = shards_needed(recipe.data, resolved.tokens)
    shards += shards > 0  # and validation
    return shards * SHARD_BYTES + 2 * (memory.parameters + ranks * memory.optimizer)


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


def choose_recipe(device: str = "auto", cpu_only: bool = False) -> Recipe:
    """The recipe for this machine: ``laptop``, or on CUDA the largest record that fits.

    A record counts where the machine has its precision. Where none fits, the newest of them is
    made less deep until it does.
    """
    machine = processor() if cpu_only else this_machine(device)
    return recipe_for(machine)


def recipe_for(machine: Machine) -> Recipe:
    """As ``choose_recipe``, for any machine."""
    if machine.is_processor or machine.kind == "mps":
        return get_recipe("laptop")
    records = [
        recipe
        for recipe in RECIPES.values()
        if recipe.record and (machine.fp8 or recipe.precision != "fp8")
    ]
    records.sort(key=lambda recipe: (recipe.depth, recipe.record.date), reverse=True)  # type: ignore[union-attr]
    for recipe in records:
        if plan(recipe, None, machine).fits:
            return recipe
    newest = max(records, key=lambda recipe: recipe.record.date)  # type: ignore[union-attr]
    for depth in range(newest.depth - 2, 3, -2):
        if plan(newest, depth, machine).fits:
            return replace(newest, depth=depth)
    return get_recipe("laptop")


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
    recipe = get_recipe(arguments.recipe or recipe_for(machine))
    named = assignments(arguments)
    loop = override(Loop(), {name: named.pop(name) for name in ("recompute",) if name in named})
    recipe, forced = override(recipe, named), "precision" in named
    again = loop.recompute == "on"
    made = plan(recipe, None, machine, mfu=arguments.mfu, recompute=again, forced=forced)
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
