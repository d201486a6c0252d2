"""AdamW in one pass over each tensor.

Source: Adam (Kingma and Ba, arXiv 1412.6980) with decoupled decay (Loshchilov and Hutter,
arXiv 1711.05101); decay first, then the moments, then the step. Chapter: muon.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def adamw_update(
    p: Tensor,
    g: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    decay: Tensor,
    step_size: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    correction2: Tensor,
    eps: float,
) -> None:
    """Update ``p`` and its moments (fp32) in place, all of one shape; scalars are 0-d tensors.

    ``decay`` is 1 - lr wd, ``step_size`` lr / (1 - b1^t), ``weight1`` and ``weight2`` 1 - b,
    ``correction2`` 1 - b2^t. Arithmetic is fp32 also where ``p`` and ``g`` are bf16. Tensors
    rather than numbers, so that a rate that changes every step compiles once.
    """
    g = g.float()
    exp_avg.lerp_(g, weight1)
    exp_avg_sq.lerp_(g.square(), weight2)
    change = exp_avg / (exp_avg_sq / correction2).sqrt_().add_(eps)
    p.copy_(p.float() * decay - step_size * change)


def adamw_scalars(group: dict[str, Any], step: int) -> list[Tensor]:
    """The 0-d tensors of ``adamw_update`` for ``group`` at its ``step`` (1 is the first)."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    values = (
        1 - lr * group["weight_decay"],
        lr / (1 - beta1**step),
        1 - beta1,
        1 - beta2,
        1 - beta2**step,
    )
    return [torch.tensor(value, dtype=torch.float32) for value in values]
