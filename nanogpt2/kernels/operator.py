"""What torch.compile takes as it is: kernels with a backward pass of their own, and choices.

To the compiler a kernel is a single step whose inside it need not understand, so an eager run and a
compiled one call the same. The log-sum-exp of each query's scores is all that the backward pass
keeps of them, as in FlashAttention-2 (Dao, arXiv 2307.08691, section 3.1). Chapter: windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., object])
Forward = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(q, k, v, window) -> output like q, log-sum-exp (B, H, T) in at least fp32"""
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""(grad, q, k, v, output, log-sum-exp, window) -> gradients of q, k and v"""

KERNELS: dict[str, tuple[Forward, Backward]] = {}
"""by name; each file of kernels enters its own"""


@torch.library.custom_op("nanogpt2::windowed_forward", mutates_args=())
def windowed_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, kernel: str
) -> tuple[Tensor, Tensor]:
    """Attention by one of ``KERNELS``: its output and log-sum-exp.

    q is (B, T, H, D), k and v are (B, S, K, D); the output is like q, the other (B, H, T).
    """
    return KERNELS[kernel][0](q, k, v, window)


@torch.library.custom_op("nanogpt2::windowed_backward", mutates_args=())
def windowed_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    return KERNELS[kernel][1](grad, q, k, v, out, lse, window)


def empty_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp, which is at least fp32."""
    B, T, H, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=wide)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.kernel = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *windowed_backward(grad, *ctx.saved_tensors, ctx.window, ctx.kernel), None, None


windowed_forward.register_fake(lambda q, *_: empty_outputs(q))
windowed_backward.register_fake(
    lambda grad, q, k, v, *_: tuple(x.new_empty(x.shape) for x in (q, k, v))
)
windowed_forward.register_autograd(_differentiate, setup_context=_save)


def asked_while_tracing(function: Function) -> Function:
    """``torch.compile`` calls ``function`` once, while tracing, and keeps its answer in the graph.

    ``torch.compiler.assume_constant_result`` sets the same mark, but imports the compiler for it,
    which takes a second and 75 MB from every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
