"""Four bills for one score, from 2019 to 2026, and the factors between them.

A bill is FLOPs over the FLOP/s that a machine gives, times its price (model FLOPs utilization:
PaLM, arXiv 2204.02311, appendix B). Two bills differ by three factors, and by nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from nanogpt2 import reported
from nanogpt2.config import GPTConfig
from nanogpt2.costs import RECORD_DEVICES, RECORD_PEAK, gpt2_kwh, record_mfu
from nanogpt2.depth import dial, flops_per_token

UNITS = ("device of four chips", "single chip")
"""what one of the 32 TPU v3 was: the price is that of a device"""
PARTS = (0.1, 0.2, float(reported.GOPHER_MFU), 0.45)
"""of the peak that GPT-2's machine may have given; the third was measured, of another model"""
ENDS = ("January 2026", "March 2026")
NODE_PEAK = RECORD_DEVICES * RECORD_PEAK


@dataclass(frozen=True)
class Bill:
    """One training run, in arithmetic and in money."""

    when: str
    flops: float
    part: float
    """of the machine's peak that the model's own FLOPs were (MFU)"""
    peak: float
    """FLOP/s of the whole machine, in bf16"""
    hourly: float
    """dollars an hour, for the whole machine"""

    @property
    def hours(self) -> float:
        """Of training."""
        return self.flops / (self.part * self.peak) / 3600

    @property
    def dollars(self) -> float:
        """For these hours."""
        return self.hours * self.hourly


class Factor(NamedTuple):
    """By what one bill is smaller than the one before it."""

    name: str
    what: str
    """hardware, software, or text and method, which together made less arithmetic do"""
    times: float


def gpt2_model() -> GPTConfig:
    """GPT-2, the large one: 48 layers of 1,600 channels and 25 heads, rows of 1,024 tokens."""
    sizes = {"n_layer": 48, "n_embd": 1600, "n_head": 25, "sequence_len": 1024}
    return GPTConfig.gpt2(**sizes, vocab_size=50_257)


def bills(part: float = reported.GOPHER_MFU, unit: str = UNITS[0]) -> list[Bill]:
    """GPT-2 in 2019, llm.c's GPT-2 in 2024, run 1 and run 6.

    ``part`` of the peak in 2019 is an assumption, and with it the FLOPs of that run: its hours are
    what was told.
    """
    chips = reported.GPT2_DEVICES * (reported.TPU_DEVICE_CHIPS if unit == UNITS[0] else 1)
    peak = chips * reported.TPU_CHIP_PEAK
    hourly = chips * reported.TPU_DEVICE_DOLLARS / reported.TPU_DEVICE_CHIPS
    first = Bill("2019", part * peak * 3600 * reported.GPT2_HOURS, part, peak, hourly)
    flops = flops_per_token(gpt2_model()) * reported.LLMC_STEPS * reported.LLMC_BATCH
    mfu = flops / (3600 * reported.LLMC_HOURS * NODE_PEAK)
    kept = Bill("2024", flops, mfu, NODE_PEAK, float(reported.LLMC_DOLLARS_PER_HOUR))
    found = [first, kept]
    for when, name in zip(ENDS, ("run1", "run6"), strict=True):
        flops, hourly = float(dial(recipe=name).total_flops), float(reported.NODE_DOLLARS_PER_HOUR)
        found.append(Bill(when, flops, record_mfu(name), NODE_PEAK, hourly))
    return found


def factors(found: list[Bill]) -> list[Factor]:
    """Three for each step from one bill to the next; their product is the whole fall."""
    made = []
    for old, new in pairwise(found):
        where = f"{new.when}: "
        arithmetic = (old.hourly / old.peak) / (new.hourly / new.peak)
        made += [
            Factor(f"{where}cheaper arithmetic", "hardware", arithmetic),
            Factor(f"{where}more of the peak", "software", new.part / old.part),
            Factor(f"{where}less arithmetic", "text and method", old.flops / new.flops),
        ]
    return made


def fall_rows(until: str = ENDS[0]) -> list[list[str]]:
    """Rows: factor, its size, its range over all assumptions, its part of the fall in logarithms.

    The assumptions are ``PARTS`` and ``UNITS``; the size is for the third and the first of them.
    """
    count = 2 + ENDS.index(until) + 1
    middle = factors(bills()[:count])
    tried = [factors(bills(part, unit)[:count]) for part in PARTS for unit in UNITS]
    whole = sum(math.log(factor.times) for factor in middle)
    rows = []
    for i, factor in enumerate(middle):
        low, *_, high = sorted(one[i].times for one in tried)
        same = math.isclose(low, high)
        rows.append(
            [
                factor.name,
                f"{factor.times:.2f}",
                "as said" if same else f"{low:.2g} to {high:.2g}",
                f"{math.log(factor.times) / whole:.0%}".replace("-0%", "0%"),
            ]
        )
    return rows


def hand_rows() -> list[list[str]]:
    """Rows: the step from 2024 to January 2026, each factor as a division that one can redo."""
    _, old, new, _ = bills()
    before, after = (bill.hourly / bill.peak * 1e15 for bill in (old, new))
    return [
        ["cheaper arithmetic", _divided(before, after, ".3f"), "dollars an hour for each PFLOP/s"],
        ["more of the peak", _divided(new.part, old.part, ".3f"), "share of 8xH100's peak"],
        ["less arithmetic", _divided(old.flops, new.flops, ".3e"), "FLOPs in all"],
        ["the product of the three", _divided(old.dollars, new.dollars, ".2f"), "dollars"],
    ]


def _divided(over: float, under: float, form: str) -> str:
    return f"{over:{form}} / {under:{form}} = {over / under:.2f}"


def implied(part: float, unit: str) -> tuple[float, float]:
    """Tokens that the bill of 2019 pays for, and how many times WebText that is.

    WebText's bytes are taken as tokens at the run's own rate of characters a token.
    """
    tokens = bills(part, unit)[0].flops / flops_per_token(gpt2_model())
    return tokens, tokens / (reported.WEBTEXT_BYTES / reported.CHARACTERS_PER_TOKEN)


def energy_rows() -> list[list[Any]]:
    """Rows: run, hours, kWh, how the power is known."""
    kwh, chips = gpt2_kwh(), reported.TPU_DEVICE_CHIPS
    known, most = "averages of later trainings", "the most that its maker states"
    rows: list[list[Any]] = [
        ["2019, devices", f"{reported.GPT2_HOURS:.0f}", f"{kwh:,.0f}", known],
        ["2019, had they been chips", f"{reported.GPT2_HOURS:.0f}", f"{kwh / chips:,.0f}", known],
    ]
    for bill in bills()[1:]:
        at_most = reported.DGX_H100_WATTS / 1000 * bill.hours
        rows.append([bill.when, f"{bill.hours:.2f}", f"{at_most:,.0f}", most])
    return rows
