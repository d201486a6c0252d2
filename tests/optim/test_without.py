"""Muon with parts left out, as on the lower rungs: Newton-Schulz, no NorMuon, plain decay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanogpt2.optim import MuonAdamW, schedules
from nanogpt2.optim.muon import second_moment_shape, variance_scale
from nanogpt2.optim.newton_schulz import COEFFICIENTS, newton_schulz
from nanogpt2.recipes import get_recipe


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_newton_schulz_is_its_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    g = torch.randn(3, *shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    s = s / (g.norm(dim=(-2, -1))[:, None] + 1e-6)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag_embed(s) @ vh
    torch.testing.assert_close(
        newton_schulz(g, dtype=torch.float64), expected, rtol=1e-6, atol=1e-6
    )


def test_newton_schulz_ends_between_two_thirds_and_five_quarters() -> None:
    values = torch.logspace(-2, 0, 32, dtype=torch.float64)
    found = torch.linalg.svdvals(newton_schulz(torch.diag(values)[None], dtype=torch.float64))
    assert found.min() > 0.66 and found.max() < 1.25


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_a_beta2_of_one_leaves_the_variance_reduction_out(shape: tuple[int, int]) -> None:
    x = torch.randn(2, *shape)
    second = torch.zeros(second_moment_shape(2, *shape))
    for _ in range(3):
        scale = variance_scale(x, second, torch.tensor(0.0))
        torch.testing.assert_close(scale, torch.ones_like(scale))
    assert not second.any()


def stepped(**choices: object) -> tuple[Tensor, Tensor]:
    """A matrix before and after one step of the real optimizer with a decay of 0.5."""
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(8, 4, generator=generator))
    w.grad = torch.randn(8, 4, generator=generator)
    before = w.detach().clone()
    rates = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5, "beta2": 0.95}
    parts = {"iterations": 5, "divisor": 1.02, "equalize_rows": False, "fix_norm": False}
    parts |= {"polynomial": "polar_express", "cautious": True, **choices}
    group = {"kind": "muon", "params": [w], "names": ["w"], **rates, **parts}
    MuonAdamW([group], dtype=torch.float32).step()
    return before, w.detach()


def test_plain_decay_takes_from_every_weight_what_cautious_takes_from_some() -> None:
    before, bare = stepped(weight_decay=0.0)
    taken = {
        name: before.new_tensor((bare - stepped(cautious=cautious)[1]).tolist())
        for name, cautious in (("cautious", True), ("plain", False))
    }
    rate = 0.1 * (8 / 4) ** 0.5
    torch.testing.assert_close(taken["plain"], rate * 0.5 * before, rtol=1e-4, atol=1e-6)
    kept = (before - bare) * before >= 0
    assert kept.any() and not kept.all()
    torch.testing.assert_close(
        taken["cautious"], torch.where(kept, taken["plain"], 0.0), rtol=1e-4, atol=1e-6
    )


def test_the_polynomial_is_the_groups() -> None:
    assert not torch.equal(stepped()[1], stepped(polynomial="newton_schulz")[1])


def test_a_constant_decay_stays() -> None:
    recipe = get_recipe("run1", **{"muon.weight_decay_schedule": "constant"})
    assert {schedules.weight_decay(recipe, step, 10) for step in range(10)} == {1.0}
