import pytest
import torch

from nanogpt2.optim.muon import (
    cautious_step,
    equalize_rows,
    fix_norm,
    muon_update,
    neuron_axis,
    variance_scale,
)
from tests.optim.test_polar_express import polynomial


def scalar(x):
    return torch.tensor(x)


@pytest.mark.parametrize("shape", [(2, 12, 8), (2, 8, 12)])
def test_variance_reduction_keeps_the_norm_and_evens_the_neurons(shape):
    axis = neuron_axis(*shape[1:])
    uneven = torch.logspace(0, 2, shape[axis - 1 if axis == -1 else -1])
    x = torch.randn(shape) * (uneven[:, None] if axis == -1 else uneven)
    second = torch.zeros_like(x.mean(axis, keepdim=True))
    y = x * variance_scale(x, second, scalar(0.05))
    torch.testing.assert_close(y.norm(dim=(-2, -1)), x.norm(dim=(-2, -1)))
    spread = y.square().mean(axis)
    # after the first step the running mean is a multiple of this step's: all neurons equal
    torch.testing.assert_close(spread, spread.mean(-1, keepdim=True).expand_as(spread))


def test_variance_reduction_against_the_formula_in_float64():
    x, second = torch.randn(3, 6, 5), torch.rand(3, 6, 1)
    state = (0.95 * second + 0.05 * x.square().mean(-1, keepdim=True)).double()
    expected = x.double() / state.clamp_min(1e-10).sqrt()
    expected *= x.double().norm(dim=(-2, -1), keepdim=True) / expected.norm(
        dim=(-2, -1), keepdim=True
    )
    result = x * variance_scale(x, second, scalar(0.05))
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(second.double(), state, rtol=1e-5, atol=1e-7)


def test_decay_acts_only_where_the_step_shrinks_the_weight():
    w = torch.tensor([[[1.0, 1.0, -1.0, -1.0, 0.0]]])
    x = torch.tensor([[[1.0, -1.0, -1.0, 1.0, 1.0]]])
    cautious_step(w, x, scalar(0.1), scalar(0.5))
    expected = [1 - 0.1 - 0.05, 1 + 0.1, -1 + 0.1 + 0.05, -1 - 0.1, -0.1]
    torch.testing.assert_close(w.flatten(), torch.tensor(expected))


def test_muon_eq_and_muon_plus():
    g = torch.randn(2, 4, 10) * torch.logspace(-2, 2, 4)[:, None]
    even = equalize_rows(g)
    rows = even.norm(dim=-1)
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows))
    torch.testing.assert_close(even.norm(dim=(-2, -1)), g.norm(dim=(-2, -1)))
    torch.testing.assert_close(fix_norm(g).norm(dim=(-2, -1)), torch.tensor([2.0, 2.0]))


def test_one_step_by_hand_in_float64():
    torch.manual_seed(0)
    w, g = torch.randn(1, 5, 9), torch.randn(1, 5, 9)
    buffer, second = torch.randn(1, 5, 9), torch.rand(1, 1, 9)
    W, G, M, V = (t.double() for t in (w.clone(), g, buffer.clone(), second.clone()))
    arguments = [scalar(v) for v in (0.9, 0.02, 0.1, 0.05)]
    muon_update(w, g, buffer, second, *arguments, 5, 1.02, False, False, torch.float32)

    M = 0.9 * M + 0.1 * G
    look = 0.1 * G + 0.9 * M
    u, s, vh = torch.linalg.svd(look, full_matrices=False)
    X = u @ torch.diag_embed(polynomial(s / (1.02 * look.norm() + 1e-6))) @ vh
    V = 0.95 * V + 0.05 * X.square().mean(-2, keepdim=True)
    Y = X / V.sqrt()
    Y *= X.norm() / Y.norm()
    W = W - 0.02 * Y - 0.02 * 0.1 * W * (Y * W >= 0)
    torch.testing.assert_close(w.double(), W, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(buffer.double(), M, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(second.double(), V, rtol=1e-4, atol=1e-6)
