"""Cross-entropy over softcapped logits without holding all logits in fp32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import UserError

IGNORE = -1
BACKENDS = ("auto", "naive", "chunked")


def softcap_logits(logits: Tensor, softcap: float) -> Tensor:
    """c tanh(z / c) (Gemma 2, arXiv 2408.00118); 0 leaves the logits as they are."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def naive_cross_entropy(
    hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, vocab_size: int, softcap: float
) -> Tensor:
    """The loss as the formula says it, (N,) float32; 0 where the target is ignored."""
    logits = F.linear(hidden_NC, weight_VC[:vocab_size].to(hidden_NC.dtype))
    logits = softcap_logits(logits.float(), softcap)
    return F.cross_entropy(logits, targets_N, ignore_index=IGNORE, reduction="none")


def softcapped_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    softcap: float,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Loss of the tokens ``targets_N`` under the logits ``hidden @ weight.T``, softcapped.

    Args:
        hidden_NC: hidden states, float32 or bfloat16.
        weight_VC: the head, at least ``vocab_size`` rows (further ones are padding).
        targets_N: the right tokens; -1 is ignored.
        vocab_size: classes of the softmax.
        softcap: c of c tanh(z / c); 0 switches it off.
        reduction: "mean" over the targets not ignored, "sum", or "none" for (N,).
        backend: one of ``BACKENDS``.
    """
    if backend not in BACKENDS:
        raise UserError(f"unknown loss backend {backend!r}; choose one of {BACKENDS}")
    loss_N = naive_cross_entropy(hidden_NC, weight_VC, targets_N, vocab_size, softcap)
    if reduction == "none":
        return loss_N
    total = loss_N.sum()
    return total if reduction == "sum" else total / (targets_N != IGNORE).sum()
