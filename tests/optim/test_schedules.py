"""Schedules at their corners."""

import pytest

from nanogpt2.optim.schedules import learning_rate, muon_momentum, weight_decay
from nanogpt2.recipes import RUN1, RUN5, RUN6


def test_run1_learning_rate():
    assert learning_rate(RUN1, 0, 1000) == 1.0
    assert learning_rate(RUN1, 500, 1000) == 1.0
    assert learning_rate(RUN1, 750, 1000) == 0.5
    assert learning_rate(RUN1, 1000, 1000) == 0.0


def test_run5_learning_rate_warms_up_and_ends_at_a_twentieth():
    assert learning_rate(RUN5, 0, 1000) == 1 / 40
    assert learning_rate(RUN5, 39, 1000) == 1.0
    assert learning_rate(RUN5, 350, 1000) == 1.0
    assert learning_rate(RUN5, 351, 1000) < 1.0
    assert learning_rate(RUN5, 1000, 1000) == pytest.approx(0.05)


def test_momentum():
    assert muon_momentum(RUN1, 0, 1000) == 0.85
    assert muon_momentum(RUN1, 150, 1000) == pytest.approx(0.90)
    assert muon_momentum(RUN1, 300, 1000) == muon_momentum(RUN1, 999, 1000) == 0.95
    assert muon_momentum(RUN5, 400, 1000) == 0.97
    assert muon_momentum(RUN6, 1100, 2000) == pytest.approx(0.97 - 0.07 * 400 / 1300)
    assert muon_momentum(RUN6, 2000, 2000) == pytest.approx(0.90)


def test_weight_decay_falls_to_zero():
    assert weight_decay(RUN1, 0, 100) == weight_decay(RUN5, 0, 100) == 1.0
    assert weight_decay(RUN1, 50, 100) == 0.5 and weight_decay(RUN5, 50, 100) == pytest.approx(0.5)
    assert weight_decay(RUN1, 25, 100) == 0.75
    assert weight_decay(RUN5, 25, 100) == pytest.approx(0.5 + 0.5 * 2**-0.5)
    assert weight_decay(RUN5, 100, 100) == pytest.approx(0.0)


def test_a_run_without_warmdown_and_a_run_of_one_step():
    from dataclasses import replace

    assert learning_rate(replace(RUN1, warmdown_ratio=0.0), 999, 1000) == 1.0
    assert learning_rate(RUN1, 0, 1) == 1.0
