"""The loss of hidden states under a head: the choice of how to compute it.

Chapter: where_the_time_goes.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.cross_entropy import cross_entropy
from nanogpt2.kernels.fast.chunked_loss import chunked_loss
from nanogpt2.kernels.logits import all_fit
from nanogpt2.kernels.operator import asked_while_tracing

BACKENDS = ("auto", "plain", "chunked")
REDUCTIONS = ("mean", "sum", "none")


def softcapped_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    softcap: float,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """``cross_entropy`` of the logits ``hidden @ weight.T``.

    Args:
        hidden_NC: hidden states; their dtype is that of the products, the rest is fp32.
        weight_VC: the head, at least ``vocab_size`` rows (further ones are padding, outside the
            softmax); any precision, cast to that of the hidden states.
        targets_N: the right tokens; -1 is ignored.
        vocab_size: classes of the softmax.
        softcap: c of c tanh(z / c); 0 switches it off.
        reduction: "mean" over the targets not ignored, "sum", or "none" for (N,).
        backend: "plain" (the definition), "chunked", or "auto".

    Raises:
        UserError: an unknown backend or reduction, or one that the chunked form does not have.
    """
    for name, value, known in (
        ("loss backend", backend, BACKENDS),
        ("reduction", reduction, REDUCTIONS),
    ):
        if value not in known:
            raise UserError(f"there is no {name} {value!r}; choose one of {', '.join(known)}")
    head_VC = weight_VC if len(weight_VC) == vocab_size else weight_VC[:vocab_size]
    learns = torch.is_grad_enabled() and (hidden_NC.requires_grad or weight_VC.requires_grad)
    if backend == "auto":
        backend = _choose(hidden_NC, head_VC, reduction, learns)
    if backend == "plain":
        logits_NV = F.linear(hidden_NC, head_VC.to(hidden_NC.dtype))
        return cross_entropy(logits_NV, targets_N, softcap, reduction)
    if learns and reduction == "none":
        raise UserError(
            "the chunked loss has no gradients of single tokens; choose the backend plain"
        )
    return chunked_loss(hidden_NC, head_VC, targets_N, softcap, reduction, learns)


def _choose(hidden_NC: Tensor, head_VC: Tensor, reduction: str, learns: bool) -> str:
    """Chunked, but where only the definition serves, or a GPU has room for it: there a compiler
    fuses its passes, and it is the fastest."""
    if learns and reduction == "none":
        return "plain"
    if not learns or hidden_NC.device.type != "cuda" or hidden_NC.dtype == torch.float32:
        return "chunked"
    logits = hidden_NC.shape[0] * head_VC.shape[0]
    return "plain" if fits(logits, hidden_NC.device.index or 0) else "chunked"


@asked_while_tracing
def fits(logits: int, gpu: int) -> bool:
    """Whether the GPU has ample room for so many."""
    return all_fit(logits, _first_free(gpu))


@functools.cache
def _first_free(gpu: int) -> int:
    """Free memory when first asked: the choice must not change in the middle of a run."""
    return free_bytes(gpu)


def free_bytes(gpu: torch.device | int) -> int:
    """What the GPU has left, and what torch's allocator holds of it without using it."""
    held = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return torch.cuda.mem_get_info(gpu)[0] + held
