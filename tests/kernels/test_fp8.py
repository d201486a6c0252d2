"""fp8 products against an emulation of the rounding in float64, and against exact products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.fp8 import (
    E4M3,
    E5M2,
    fp8_linear,
    fp8_serves,
    fp8_supported,
    quantize,
)
from tests.kernels.oracle import relative_error


@pytest.fixture(scope="module", autouse=True)
def products() -> None:
    reason = fp8_supported("cpu")
    if reason is not None:
        pytest.skip(reason)


def rounded(x: Tensor, mantissa_bits: int, least_exponent: int, largest: float) -> Tensor:
    """What tensorwise scaling to an fp8 type leaves of x, worked out in float64."""
    x = x.detach()
    # The scale is fp32 by definition; the rounding is done here, as the format defines it.
    scale = (largest / x.abs().max().float()).double()
    y = x.double() * scale
    exponent = torch.frexp(y.abs()).exponent - 1
    step = torch.ldexp(torch.ones_like(y), exponent.clamp(min=least_exponent) - mantissa_bits)
    return ((y / step).round() * step).clamp(-largest, largest) / scale


def e4m3(x: Tensor) -> Tensor:
    return rounded(x, 3, -6, 448.0)


def e5m2(x: Tensor) -> Tensor:
    return rounded(x, 2, -14, 57344.0)


def case(dtype: torch.dtype, *lead: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(lead))
    x = torch.randn(*lead, 64, generator=generator).to(dtype).requires_grad_()
    weight = (0.05 * torch.randn(48, 64, generator=generator)).requires_grad_()
    grad = 1e-5 * torch.randn(*lead, 48, generator=generator)
    return x, weight, grad.to(dtype)


@pytest.mark.parametrize("lead", [(32,), (3, 5), (1,)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_products_are_those_of_the_rounded_matrices(
    dtype: torch.dtype, bound: float, lead: tuple[int, ...]
) -> None:
    x, weight, grad = case(dtype, *lead)
    y = fp8_linear(x, weight)
    d_x, d_weight = torch.autograd.grad(y, (x, weight), grad)
    x8, w8, g8 = e4m3(x), e4m3(weight), e5m2(grad)
    assert y.shape == (*lead, 48) and y.dtype == d_x.dtype == dtype
    assert d_weight.dtype == weight.dtype
    assert relative_error(y, x8 @ w8.T) < bound
    assert relative_error(d_x, g8 @ w8) < bound
    assert relative_error(d_weight, g8.flatten(0, -2).T @ x8.flatten(0, -2)) < bound


def test_errors_stay_within_what_the_formats_promise() -> None:
    # Half a unit in the last place: 2^-4 of a number in e4m3, 2^-3 in e5m2. Roundings are
    # independent, so a sum of many products errs by their root mean square, well under the bound.
    x, weight, grad = case(torch.float32, 256)
    y = fp8_linear(x, weight)
    d_x, d_weight = torch.autograd.grad(y, (x, weight), grad)
    exact_x, exact_w, exact_g = (t.detach().double() for t in (x, weight, grad))
    assert 0.005 < relative_error(y, exact_x @ exact_w.T) < 2**-4
    assert 0.005 < relative_error(d_x, exact_g @ exact_w) < 2**-3
    assert 0.005 < relative_error(d_weight, exact_g.T @ exact_x) < 2**-3


@pytest.mark.parametrize(("dtype", "reference"), [(E4M3, e4m3), (E5M2, e5m2)])
def test_scaling_fills_the_range_and_saturates(dtype: torch.dtype, reference) -> None:  # type: ignore[no-untyped-def]
    x = torch.linspace(-3, 7, 333) ** 3
    x8, back = quantize(x, dtype)
    assert x8.dtype == dtype and x8.float().abs().max() == torch.finfo(dtype).max
    torch.testing.assert_close(x8.double() * back.double(), reference(x), rtol=1e-6, atol=0)


def test_zeros_stay_zeros() -> None:
    x, weight, _ = case(torch.bfloat16, 16)
    y = fp8_linear(torch.zeros_like(x).requires_grad_(), weight)
    assert not y.any()
    (d_weight,) = torch.autograd.grad(y.sum(), weight)
    assert not d_weight.any()


def test_the_graph_keeps_one_byte_a_number() -> None:
    x, weight, _ = case(torch.bfloat16, 32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fp8_linear(x, weight)
    assert sum(t.nbytes for t in kept) <= x.numel() + weight.numel() + 2 * 4


def test_only_gradients_asked_for_are_made() -> None:
    x, weight, grad = case(torch.float32, 16)
    fp8_linear(x, weight.detach()).backward(grad)
    assert x.grad is not None and weight.grad is None


def test_which_layers_qualify() -> None:
    assert fp8_serves(768, 3072) and fp8_serves(16, 32768)
    assert not fp8_serves(768, 12) and not fp8_serves(24, 768)
    assert fp8_serves(128, 128, smallest=128) and not fp8_serves(112, 768, smallest=128)
    with pytest.raises(UserError, match="48 x 24 weight .* multiples of 16"):
        fp8_linear(torch.zeros(4, 24), torch.zeros(48, 24))


def test_devices_without_fp8_say_so() -> None:
    assert "no fp8 products on meta" in str(fp8_supported("meta"))


def test_one_graph_under_torch_compile() -> None:
    x, weight, grad = case(torch.bfloat16, 3, 5)
    run = torch.compile(fp8_linear, dynamic=False, fullgraph=True, backend="aot_eager")
    compiled, eager = run(x, weight), fp8_linear(x, weight)
    assert torch.equal(compiled, eager)
    found = torch.autograd.grad(compiled, (x, weight), grad)
    wanted = torch.autograd.grad(eager, (x, weight), grad)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.cuda
def test_on_the_gpu() -> None:
    reason = fp8_supported("cuda")
    if reason is not None:
        pytest.skip(reason)
    x, weight, grad = (t.detach().cuda() for t in case(torch.bfloat16, 3, 5))
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = fp8_linear(x, weight)
    d_x, d_weight = torch.autograd.grad(y, (x, weight), grad)
    x8, w8, g8 = e4m3(x.cpu()), e4m3(weight.cpu()), e5m2(grad.cpu())
    assert relative_error(y, x8 @ w8.T) < 1e-2  # fast accumulation keeps fewer bits
    assert relative_error(d_x, g8 @ w8) < 4e-3
    assert relative_error(d_weight, g8.flatten(0, -2).T @ x8.flatten(0, -2)) < 4e-3
