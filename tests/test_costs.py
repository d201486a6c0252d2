"""Dollars, hours and energy: the recorded facts to the digit."""

from __future__ import annotations

import pytest

from nanogpt2.costs import (
    RUN1_SECONDS,
    cost_fall,
    energy_kwh,
    gpt2_dollars,
    gpt2_kwh,
    model_flops_utilization,
    record_mfu,
    training_seconds,
)
from nanogpt2.machines import (
    machine_of,
)
from nanogpt2.planning import (
    plan,
)
from nanogpt2.recipes import RECIPES

NODE = machine_of("H100", 8)


def test_gpt2_in_2019():
    assert gpt2_dollars() == 43_008
    assert 5_200 < gpt2_kwh() < 6_800  # 128 chips of 245 to 310 W


def test_run1_to_the_digit():
    made = plan("run1", None, NODE)
    assert made.dial.iterations == 16_704
    assert made.dial.total_flops == 43_307_841_312_289_456_128 == 4.330784131228946e19
    assert made.seconds == pytest.approx(10_949.46713, rel=1e-12)
    assert made.seconds / 3600 == pytest.approx(3.04, abs=0.005)
    assert made.dollars == pytest.approx(73, abs=0.005)
    assert made.mfu == pytest.approx(0.49990, abs=5e-6)
    assert made.fits and made.reasons == ()
    assert (made.device_batch_size, made.accumulation) == (16, 2)


def test_the_fall_of_cost():
    times, a_year = cost_fall(plan("run1", None, NODE).dollars)
    assert times == pytest.approx(590, abs=3)
    assert a_year == pytest.approx(0.40, abs=0.005)
    assert a_year**7 == pytest.approx(1 / times, rel=1e-12)


@pytest.mark.parametrize("name", ["run2", "run3", "run4", "run5", "run6"])
def test_records_take_the_time_they_took(name):
    made, hours = plan(name, None, NODE), RECIPES[name].record.hours
    assert made.seconds / 3600 == pytest.approx(hours, rel=1e-12)
    assert made.fits
    assert made.device_batch_size * made.accumulation * 8 * 2048 == made.dial.batch_tokens
    assert 0.4 < record_mfu(name) < 0.8  # of the bf16 peak; fp8 has twice that


def test_time_and_utilization_are_one_equation():
    share = model_flops_utilization(4.33e19, RUN1_SECONDS, 8, 989e12)
    assert training_seconds(4.33e19, share, 8, 989e12) == pytest.approx(RUN1_SECONDS)
    one, eight = plan("run1", None, machine_of("H100")), plan("run1", None, NODE)
    assert one.seconds == pytest.approx(8 * eight.seconds)
    assert one.dollars == pytest.approx(eight.dollars)  # paid by the device
    assert one.kwh == pytest.approx(eight.kwh)
    assert one.accumulation == 8 * eight.accumulation
    assert plan("run1", None, NODE, mfu=0.25).seconds == pytest.approx(
        eight.seconds * eight.mfu / 0.25
    )


def test_energy_of_a_node_is_its_rated_power():
    assert energy_kwh(NODE, 3600) == pytest.approx(10.2)  # a DGX H100
    assert 150 < gpt2_kwh() / plan("run1", None, NODE).kwh < 220
