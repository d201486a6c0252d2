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


def with_spectrum(rows, cols, decades, seed=0):
    """(rows, cols) in float64 with singular values from 1 down over ``decades``."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(1, rows, cols, dtype=torch.float64, generator=generator)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    values = torch.logspace(0, -decades, s.size(-1), dtype=torch.float64)
    return u * values @ vh, u @ vh


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_bf16_stays_in_the_band_around_the_polar_factor(shape):
    g, polar = with_spectrum(*shape, decades=1)
    x = polar_express(g.float()).double()
    values = torch.linalg.svdvals(x)
    assert values.min() > 0.8 and values.max() < 1.2
    assert (x * polar).sum() / min(shape) > 0.95


def test_zero_stays_zero():
    assert not polar_express(torch.zeros(1, 8, 8)).any()
