"""RoPE as complex numbers: the score of two positions depends on their difference alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.model.rope import rope_tables, rotate


def tables(length, dim, base=10_000.0):
    return rope_tables(length, dim, base, dtype=torch.float64)


def test_rotation_is_multiplication_by_a_complex_number():
    cos, sin = tables(7, 10)
    x = torch.randn(1, 7, 2, 10, dtype=torch.float64)
    pairs = torch.complex(x[..., :5], x[..., 5:])
    angle = torch.arange(7)[:, None] * 10_000.0 ** (-torch.arange(5) / 5.0)
    turned = pairs * torch.exp(-1j * angle)[:, None]
    expected = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(rotate(x, cos, sin), expected, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 40))
def test_scores_depend_on_the_difference_of_positions(i, j, shift):
    torch.manual_seed(0)
    cos, sin = tables(100, 16)
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def score(m, n):
        return (
            rotate(q, cos[m : m + 1], sin[m : m + 1]) * rotate(k, cos[n : n + 1], sin[n : n + 1])
        ).sum()

    torch.testing.assert_close(score(i, j), score(i + shift, j + shift), rtol=1e-4, atol=1e-4)


def test_lengths_are_kept_and_position_zero_is_left_alone():
    cos, sin = tables(9, 8)
    x = torch.randn(2, 9, 3, 8, dtype=torch.float64)
    y = rotate(x, cos, sin)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=1e-6)
    assert torch.equal(y[:, 0], x[:, 0])


def test_rows_at_positions_of_their_own():
    cos, sin = tables(9, 8)
    x = torch.randn(2, 3, 1, 8, dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2], [4, 5, 6]])
    y = rotate(x, cos[positions], sin[positions])
    assert torch.equal(y[0], rotate(x[:1], cos[:3], sin[:3])[0])
    assert torch.equal(y[1], rotate(x[1:], cos[4:7], sin[4:7])[0])
