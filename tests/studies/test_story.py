"""What the chapter that tells the story reckons and draws."""

from __future__ import annotations

import math

import pytest

from nanogpt2 import reported
from nanogpt2.costs import gpt2_dollars
from nanogpt2.depth import dial, flops_per_token, parameter_counts
from nanogpt2.studies import story
from nanogpt2.studies.core import core_bundle
from nanogpt2.studies.story.bills import implied


def test_gpt2_has_the_parameters_that_were_published() -> None:
    counts = parameter_counts(story.gpt2_model())
    rows = counts["wte"] // 1600 - 50_257  # tables are padded to a multiple of 64 rows
    assert 0 <= rows < 64
    assert counts["total"] - 1600 * rows == 1_557_611_200


@pytest.mark.parametrize("unit", story.UNITS)
@pytest.mark.parametrize("part", story.PARTS)
def test_a_bill_is_what_was_told_whatever_is_assumed(part: float, unit: str) -> None:
    first, kept, run1, run6 = story.bills(part, unit)
    chips = 1 if unit == story.UNITS[0] else reported.TPU_DEVICE_CHIPS
    assert first.dollars == pytest.approx(gpt2_dollars() / chips)
    assert first.hours == pytest.approx(168)
    assert kept.dollars == pytest.approx(reported.LLMC_DOLLARS)
    assert kept.hours == pytest.approx(reported.LLMC_HOURS)
    assert run1.dollars == pytest.approx(reported.run1_dollars())
    assert run1.hours * 3600 == pytest.approx(reported.RUN1_SECONDS)
    assert run6.hours == pytest.approx(reported.LEADERBOARD["run6"].hours)


@pytest.mark.parametrize("unit", story.UNITS)
@pytest.mark.parametrize("part", story.PARTS)
def test_the_product_of_the_factors_is_the_fall(part: float, unit: str) -> None:
    found = story.bills(part, unit)
    product = math.prod(factor.times for factor in story.factors(found))
    assert product == pytest.approx(found[0].dollars / found[-1].dollars)


def test_what_is_assumed_of_2019_moves_its_own_factors_alone() -> None:
    low, high = (story.factors(story.bills(part)) for part in (0.1, 0.4))
    assert low[0] == high[0] and low[3:] == high[3:]
    assert low[1].times == pytest.approx(4 * high[1].times)
    assert low[2].times == pytest.approx(high[2].times / 4)


def test_shares_add_up_and_ranges_hold_the_size() -> None:
    for until in story.ENDS:
        rows = story.fall_rows(until)
        shares = [int(row[3].rstrip("%")) for row in rows]
        assert sum(shares) == pytest.approx(100, abs=len(rows) / 2)
        for _, size, span, _ in rows:
            if span != "as said":
                low, high = map(float, span.split(" to "))
                assert low <= float(size) * 1.05 and float(size) <= high * 1.05


def test_by_hand_the_three_divisions_multiply_to_the_last() -> None:
    *parts, whole = (float(row[1].split(" = ")[1]) for row in story.hand_rows())
    assert math.prod(parts) == pytest.approx(whole, rel=0.02)
    for _, written, _ in story.hand_rows():
        division, result = written.split(" = ")
        over, under = map(float, division.split(" / "))
        assert over / under == pytest.approx(float(result), abs=0.02)


def test_tokens_of_2019_are_its_flops_over_those_of_a_token() -> None:
    tokens, passes = implied(0.2, story.UNITS[0])
    seconds, chips = 168 * 3600, 32 * 4
    flops = 0.2 * chips * reported.TPU_CHIP_PEAK * seconds
    assert tokens == pytest.approx(flops / flops_per_token(story.gpt2_model()))
    assert passes == pytest.approx(tokens * reported.CHARACTERS_PER_TOKEN / 40e9)
    assert implied(0.2, story.UNITS[1])[0] == pytest.approx(tokens / 4)


def test_the_frame_says_what_it_draws() -> None:
    alt = story.fall_frame(story.PARTS[2], story.UNITS[0], story.ENDS[0])[1]
    assert alt.startswith("From 43,008 to 73 dollars") and "single chip" not in alt
    longer = story.fall_frame(story.PARTS[0], story.UNITS[1], story.ENDS[1])[1]
    assert longer.startswith("From 10,752 to 40 dollars")
    assert longer.count(" times") == alt.count(" times") + 3


def test_squares_have_areas_as_the_bills() -> None:
    assert "2019: 43,008 dollars; 2024: 672 dollars; January 2026: 73 dollars" in (
        story.squares().html
    )


def test_the_task_picture_ends_in_the_published_core() -> None:
    assert f"Their mean is {reported.GPT2_CORE:.4f}" in story.task_picture(core_bundle()).html


def test_energy_is_power_times_hours() -> None:
    rows = {row[0]: row[2] for row in story.energy_rows()}
    assert float(rows["2024"]) == pytest.approx(10.2 * 24, abs=0.5)
    devices, chips = (rows[name] for name in ("2019, devices", "2019, had they been chips"))
    assert float(devices.replace(",", "")) == pytest.approx(
        4 * float(chips.replace(",", "")), abs=2
    )


def test_run1_did_an_eighth_of_the_arithmetic_of_2024() -> None:
    _, kept, run1, _ = story.bills()
    assert run1.flops == dial(recipe="run1").total_flops
    assert 7.9 < kept.flops / run1.flops < 8.0
