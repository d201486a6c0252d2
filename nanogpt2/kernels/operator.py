"""One differentiable operator around every kernel that brings a backward pass of its own.

To torch.compile it is a single step whose inside it need not understand, so an eager run and a
compiled one call the same kernel. The log-sum-exp of each query's scores is all that the backward
pass keeps of them, as in FlashAttention-2 (Dao, arXiv 2307.08691, section 3.1). Chapter: windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, Tensor, int, float], tuple[Tensor, Tensor]]
"""(q, k, v, window, scale) -> output like q, log-sum-exp (B, H, T) in at least fp32"""
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""(grad, q, k, v, output, log-sum-exp, window, scale) -> gradients of q, k and v"""

KERNELS: dict[str, tuple[Forward, Backward]] = {}
"""by name; each file of kernels enters its own"""


def kernel_attention(
    q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int, scale: float | None, kernel: str
) -> Tensor:
    """Causal attention over a sliding window by one of ``KERNELS``; (B, T, H, D)."""
    scale = q_BTHD.shape[3] ** -0.5 if scale is None else scale
    return windowed_forward(q_BTHD, k_BSKD, v_BSKD, window, scale, kernel)[0]


@torch.library.custom_op("nanogpt2::windowed_forward", mutates_args=())
def windowed_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, kernel: str
) -> tuple[Tensor, Tensor]:
    """q (B, T, H, D), k and v (B, S, K, D) -> output like q, log-sum-exp (B, H, T)."""
    return KERNELS[kernel][0](q, k, v, window, scale)


@torch.library.custom_op("nanogpt2::windowed_backward", mutates_args=())
def windowed_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    scale: float,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    return KERNELS[kernel][1](grad, q, k, v, out, lse, window, scale)


def empty_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp, which is at least fp32."""
    B, T, H, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=wide)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.scale, ctx.kernel = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = windowed_backward(grad, *ctx.saved_tensors, ctx.window, ctx.scale, ctx.kernel)
    return *grads, None, None, None


windowed_forward.register_fake(lambda q, *_: empty_outputs(q))
windowed_backward.register_fake(
    lambda grad, q, k, v, *_: tuple(x.new_empty(x.shape) for x in (q, k, v))
)
windowed_forward.register_autograd(_differentiate, setup_context=_save)
