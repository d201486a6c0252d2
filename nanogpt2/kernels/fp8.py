"""Matrix products in fp8 with one scale a tensor, as the records from the second on used them.

Tensorwise dynamic scaling: each tensor is multiplied by max_fp8 / amax, its own largest magnitude
of this very step, and rounded, saturating. Activations and weights go into e4m3 (more mantissa),
the gradient into e5m2 (more range); sums are fast and less exact forward, exact backward. What
backward needs of x and W is kept in fp8, a byte a number. Source: FP8 Formats for Deep Learning
(Micikevicius et al., arXiv 2209.05433). Chapter: where_the_time_goes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import UserError

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""Both sizes of a product's matrices must be multiples of this (tensor cores' tiles)."""


def fp8_serves(in_features: int, out_features: int, smallest: int = MULTIPLE) -> bool:
    """Whether a Linear of these sizes goes to fp8: multiples of 16, no side under ``smallest``.

    The records 4 to 6 leave out layers with a side under 128.
    """
    sides = (in_features, out_features)
    return min(sides) >= smallest and not any(side % MULTIPLE for side in sides)


@functools.cache
def fp8_supported(device: torch.device | str) -> str | None:
    """Why ``device`` cannot multiply in fp8, or None where a small product comes out right."""
    device = torch.device(device)
    if device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < (8, 9):
            return (
                f"fp8 needs compute capability 8.9 or later (Ada, Hopper); this is {major}.{minor}"
            )
    elif device.type not in ("cpu", "cuda"):
        return f"there are no fp8 products on {device.type}"
    try:
        ones = torch.ones(MULTIPLE, MULTIPLE, dtype=torch.bfloat16, device=device)
        (x, x_back), (y, y_back) = quantize(ones, E5M2), quantize(ones, E4M3)
        right = torch.equal(_product(x, x_back, y, y_back, False, ones.dtype), ones * MULTIPLE)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        return f"torch {torch.__version__} has no fp8 products here: {str(error).splitlines()[0]}"
    return None if right else "a product of ones in fp8 comes out wrong"


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale a tensor to the range of an fp8 type and round it, saturating.

    Returns:
        The fp8 tensor, and the factor that takes it back (0-dim, fp32).
    """
    largest = torch.finfo(dtype).max
    scale = largest / x.abs().amax().float().clamp(min=1e-12)
    return (x.float() * scale).clamp(-largest, largest).to(dtype), scale.reciprocal()


def _product(
    a: Tensor, a_back: Tensor, b: Tensor, b_back: Tensor, fast: bool, dtype: torch.dtype
) -> Tensor:
    """a @ b.T of fp8 matrices (M, K) and (N, K); the kernel wants a by rows, b.T by columns."""
    return torch._scaled_mm(
        a.contiguous(),
        b.contiguous().t(),
        scale_a=a_back,
        scale_b=b_back,
        out_dtype=dtype,
        use_fast_accum=fast,
    )


class _Fp8Linear(torch.autograd.Function):
    """x (M, in) @ weight (out, in).T; M is a multiple of 16, as it is summed over in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        (x8, x_back), (w8, w_back) = quantize(x, E4M3), quantize(weight, E4M3)
        ctx.save_for_backward(x8, x_back, w8, w_back)
        ctx.x_dtype, ctx.weight_dtype = x.dtype, weight.dtype
        return _product(x8, x_back, w8, w_back, True, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x8, x_back, w8, w_back = ctx.saved_tensors
        g8, g_back = quantize(grad, E5M2)
        d_x = d_weight = None
        if ctx.needs_input_grad[0]:
            d_x = _product(g8, g_back, w8.t(), w_back, False, ctx.x_dtype)
        if ctx.needs_input_grad[1]:
            d_weight = _product(g8.t(), g_back, x8.t(), x_back, False, ctx.weight_dtype)
        return d_x, d_weight


def fp8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T with fp8 products, forward and backward.

    Args:
        x: (..., in_features), float32 or bfloat16; the result has its dtype.
        weight: (out_features, in_features), a master in any precision; its gradient has its dtype.

    Raises:
        UserError: a size that is not a multiple of 16.
    """
    out_features, in_features = weight.shape
    if not fp8_serves(in_features, out_features):
        raise UserError(
            f"a {out_features} x {in_features} weight cannot be multiplied in fp8; "
            f"both sizes must be multiples of {MULTIPLE}"
        )
    rows = x.reshape(-1, in_features)
    missing = -len(rows) % MULTIPLE
    padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows  # zeros change no sum
    out: Tensor = _Fp8Linear.apply(padded, weight)
    return out[: len(rows)].reshape(*x.shape[:-1], out_features)
