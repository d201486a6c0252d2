"""The softcapped loss a few hundred tokens at a time, so that no table of all logits ever stands.

While it has the logits of a chunk it makes their gradients too. All passes over them are in place,
and on a processor over rows that stay in its cache from one pass to the next: at the laptop
recipe's vocabulary that is twice as fast as the definition. Sources: Cut Your Losses (Wijmans et
al., arXiv 2411.09009), Liger Kernel (Hsu et al., 2410.10989). Chapter: where_the_time_goes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanogpt2.kernels.cross_entropy import IGNORE
from nanogpt2.kernels.logits import chunk_rows

BAND = 2**18
"""logits that a processor takes through all passes at a time: a megabyte in fp32"""
SAFE_EXPONENT = 50.0
"""exp of this, summed over any vocabulary, is far from overflowing fp32"""


def chunked_loss(
    hidden_NC: Tensor,
    head_VC: Tensor,
    targets_N: Tensor,
    softcap: float,
    reduction: str,
    learns: bool,
) -> Tensor:
    """``cross_entropy.cross_entropy`` of ``hidden @ head.T``; "none" only without gradients."""
    mean, half = reduction == "mean", hidden_NC.dtype == torch.float16
    inside = mean and not half
    total, losses_N, *_ = _chunked(hidden_NC, head_VC, targets_N, softcap, inside, learns)
    if mean and half:  # a token's share of a gradient is too small for fp16: taken outside
        total = total / (targets_N != IGNORE).sum()
    return losses_N if reduction == "none" else total


@torch.library.custom_op("nanogpt2::chunked_loss", mutates_args=())
def _chunked(
    hidden: Tensor, head: Tensor, targets: Tensor, softcap: float, mean: bool, learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss (0-dim), each token's (N,), and the gradients of hidden states and head, if asked.

    Only the first has a derivative.
    """
    losses, d_hidden, d_head = _empty_outputs(hidden, head, learns)
    share = torch.ones((), dtype=losses.dtype, device=losses.device)
    if mean:
        share = 1 / (targets != IGNORE).sum().to(losses.dtype)
    weight = head.to(hidden.dtype)
    rows = chunk_rows(len(head))
    room = hidden.new_empty(min(rows, len(hidden)), len(head))  # of one chunk after the other
    band = max(1, BAND // len(head)) if hidden.device.type == "cpu" else rows
    for start in range(0, len(hidden), rows):
        chunk = slice(start, start + rows)
        logits = torch.mm(hidden[chunk], weight.T, out=room[: len(hidden[chunk])])
        bands = (x.split(band) for x in (logits, targets[chunk], losses[chunk]))
        for z, labels, nats in zip(*bands, strict=True):
            nats.copy_(_token_losses(z, labels, softcap, share if learns else None))
        if learns:  # the logits have become their gradients
            torch.mm(logits, weight, out=d_hidden[chunk])
            if hidden.dtype == d_head.dtype:
                d_head.addmm_(logits.T, hidden[chunk])
            else:  # summed in fp32
                d_head += logits.T @ hidden[chunk]
    return losses.sum() * share, losses, d_hidden, d_head.to(head.dtype)


def _empty_outputs(hidden: Tensor, head: Tensor, learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the losses and the gradients; that of the head is summed in fp32, from 0."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    losses = hidden.new_empty(len(hidden), dtype=wide)
    d_hidden, d_head = torch.empty_like(hidden), torch.zeros_like(head, dtype=wide)
    return (losses, d_hidden, d_head) if learns else (losses, d_hidden[:0], d_head[:0])


def _token_losses(logits: Tensor, targets: Tensor, softcap: float, share: Tensor | None) -> Tensor:
    """Losses (n,) in fp32; with ``share``, d(result) / d(loss), ``logits`` become gradients."""
    kept = targets != IGNORE
    target = targets.clamp(min=0)[:, None]
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))  # itself, if wide
    bent = scores.div_(softcap).tanh_() if softcap else None
    scores = scores if bent is None else bent * softcap
    right = scores.gather(1, target)[:, 0]
    if not 0 < softcap <= SAFE_EXPONENT:
        top = scores.amax(dim=1)
        right = right - top
        scores.sub_(top[:, None])
    total = scores.exp_().sum(dim=1)
    if share is not None:
        grads = torch.where(kept, share, 0.0)
        scores.mul_((grads / total)[:, None])  # the softmax, less 1 at the target:
        scores.scatter_add_(1, target, -grads[:, None])
        if bent is not None:  # times d/dz of c tanh(z / c)
            scores.addcmul_(scores, bent.square_(), value=-1)
        logits.copy_(scores)
    return torch.where(kept, total.log() - right, 0.0)


@_chunked.register_fake
def _(hidden: Tensor, head: Tensor, *others: Any) -> tuple[Tensor, ...]:
    losses, d_hidden, d_head = _empty_outputs(hidden, head, learns=others[-1])
    return losses.new_empty(()), losses, d_hidden, d_head.to(head.dtype)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])


def _scale_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    d_hidden, d_head = ctx.saved_tensors
    return grad.to(d_hidden.dtype) * d_hidden, grad.to(d_head.dtype) * d_head, *[None] * 4


_chunked.register_autograd(_scale_gradients, setup_context=_keep_gradients)
