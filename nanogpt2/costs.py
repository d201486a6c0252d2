"""Time, energy and money of a run, from its FLOPs; and what GPT-2 took in 2019.

Time is FLOPs over the part of the peak that is reached (model FLOPs utilization: PaLM, arXiv
2204.02311, appendix B), taken from what the records reached.
Chapters: where_the_time_goes, speedrun.
"""

from __future__ import annotations

from nanogpt2 import reported
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.machines import Machine
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.reported import RUN1_SECONDS

RECORD_DEVICES, RECORD_PEAK = 8, float(reported.H100_PEAK)
"""the records' node: 8xH100"""
UNTRIED_MFU, UNTRIED_MFU_FP16 = 0.4, 0.2
"""assumed of machines for which nothing was recorded: less of cards before Ampere, whose attention
has no FlashAttention and whose board power (70 W of a T4) does not let the peak last"""
NODE_POWER = reported.DGX_H100_WATTS / (8 * reported.H100_WATTS)
"""rated power of a DGX H100 over that of its eight GPUs: the machine around them counts too"""

GPT2_CHIP_WATTS = (reported.TPU_CHIP_WATTS_LOW + reported.TPU_CHIP_WATTS_HIGH) / 2
"""of a TPU v3 chip with its share of the host: the middle of the range of averages measured over
four large trainings (Patterson et al., arXiv 2104.10350, table 4), cooling left out"""


def model_flops_utilization(
    total_flops: float, seconds: float, devices: int, peak_flops: float
) -> float:
    """Part of the machine's peak arithmetic that the model's own FLOPs are."""
    return total_flops / (seconds * devices * peak_flops)


def training_seconds(total_flops: float, mfu: float, devices: int, peak_flops: float) -> float:
    """The same equation solved for time."""
    return total_flops / (mfu * devices * peak_flops)


def record_mfu(recipe: Recipe | str) -> float:
    """What a record reached on 8xH100, as a part of the bf16 peak (also for fp8 recipes).

    Raises UserError for a recipe that has no record.
    """
    recipe = get_recipe(recipe)
    if recipe.record is None:
        raise UserError(f"recipe {recipe.name} has no record; choose one of run1 to run6")
    seconds = RUN1_SECONDS if recipe.name == "run1" else 3600 * recipe.record.hours
    flops = dial(recipe=get_recipe(recipe.name)).total_flops
    return model_flops_utilization(flops, seconds, RECORD_DEVICES, RECORD_PEAK)


def energy_kwh(machine: Machine, seconds: float) -> float | None:
    """At most: every device and its share of the machine at their rated power all the time."""
    if machine.watts is None:
        return None
    around = 1.0 if machine.is_processor else NODE_POWER
    return machine.devices * machine.watts * around * seconds / 3.6e6


def polar_express_flops(rows: int, cols: int, iterations: int = 5) -> int:
    """FLOPs of Polar Express on one matrix, products on the shorter side, as written."""
    n, m = min(rows, cols), max(rows, cols)
    return iterations * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)


def gpt2_dollars() -> int:
    """GPT-2, announced in February 2019: 32 TPU v3 for 168 hours at $8 an hour.

    The price was that of a device of four chips; had the 32 been chips, it is a quarter.
    """
    return int(reported.GPT2_DEVICES * reported.GPT2_HOURS * reported.TPU_DEVICE_DOLLARS)


def gpt2_kwh() -> float:
    """About what those devices' chips drew, by averages of later trainings; no bound."""
    chips = reported.GPT2_DEVICES * reported.TPU_DEVICE_CHIPS
    return chips * reported.GPT2_HOURS * GPT2_CHIP_WATTS / 1000


def cost_fall(dollars: float, years: float = 7.0) -> tuple[float, float]:
    """How many times cheaper than GPT-2 in 2019, and the factor a year that makes of it."""
    return gpt2_dollars() / dollars, (dollars / gpt2_dollars()) ** (1 / years)


def assumed_mfu(recipe: Recipe, machine: Machine) -> float:
    """What the recipe's record reached, on H100s; less where nothing was recorded."""
    if machine.kind not in ("H100", "H200", "H800"):
        return UNTRIED_MFU_FP16 if machine.fp16 else UNTRIED_MFU
    recorded = recipe.name if recipe.record else {"head": "run6"}.get(recipe.name, "run1")
    if recipe.precision != "fp8":
        recorded = "run1"
    return record_mfu(recorded)
