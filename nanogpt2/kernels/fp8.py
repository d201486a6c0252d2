"""Matrix products in fp8 with one scale a tensor, as the records from the second on used them.

Tensorwise dynamic scaling: scale = max_fp8 / amax, x and W in e4m3 (more mantissa), the gradient
in e5m2 (more range); fast accumulation forward only. Explained in the speedrun chapter.
"""

from __future__ import annotations

import torch
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale a tensor to the range of an fp8 type and round it, saturating.

    Returns:
        The fp8 tensor and the float32 scalar that undoes the scaling.
    """
    largest = torch.finfo(dtype).max
    scale = largest / x.abs().amax().float().clamp(min=1e-12)
    scaled = (x.float() * scale).clamp(-largest, largest)
    return scaled.to(dtype), scale.reciprocal()


def product(
    a: Tensor,
    b: Tensor,
    a_dtype: torch.dtype,
    b_dtype: torch.dtype,
    fast: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """a @ b.T in fp8; a (M, K), b (N, K)."""
    a8, a_scale = quantize(a, a_dtype)
    b8, b_scale = quantize(b, b_dtype)
    return torch._scaled_mm(
        a8.contiguous(),
        b8.contiguous().t(),
        scale_a=a_scale,
        scale_b=b_scale,
        out_dtype=out_dtype,
        use_fast_accum=fast,
    )


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return product(x, weight, E4M3, E4M3, True, x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        grad_x = product(grad, weight.t(), E5M2, E4M3, False, x.dtype)
        grad_w = product(grad.t(), x.t(), E5M2, E4M3, False, weight.dtype)
        return grad_x, grad_w


def fp8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T with fp8 products, forward and backward; x (..., in), weight (out, in)."""
    out = _Fp8Linear.apply(x.reshape(-1, x.shape[-1]), weight)
    return out.reshape(*x.shape[:-1], weight.shape[0])
