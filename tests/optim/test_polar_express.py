"""Against the singular value decomposition, in float64."""

import pytest
import torch

from nanogpt2.optim.polar_express import COEFFICIENTS, polar_express


def polynomial(s, divisor=1.02):
    for a, b, c in COEFFICIENTS:
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (6, 32)])
def test_it_is_the_polynomial_of_the_singular_values(shape):
    g = torch.randn(3, *shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    scaled = s / (1.02 * g.norm(dim=(-2, -1))[:, None] + 1e-6)
    expected = u @ torch.diag_embed(polynomial(scaled)) @ vh
    result = polar_express(g, dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_singular_values_from_a_thousandth_on_land_near_one():
    s = torch.logspace(-3, 0, 2000, dtype=torch.float64) / 1.02
    mapped = polynomial(s[s >= 1e-3])
    assert mapped.min() > 0.85 and mapped.max() < 1.15


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_bf16_stays_in_the_band_around_the_polar_factor(shape):
    g = torch.randn(4, *shape)
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    values = torch.linalg.svdvals(polar_express(g).float())
    assert values.min() > 0.6 and values.max() < 1.25
    aligned = (polar_express(g).float() * (u @ vh)).sum((-2, -1)) / min(shape)
    assert (aligned > 0.9).all()


def test_zero_stays_zero():
    assert not polar_express(torch.zeros(1, 8, 8)).any()
