"""Training with products in fp16: the loss is scaled up before the backward pass.

fp16 has the fast products of cards before Ampere (V100, T4) and three bits more than bf16, but its
smallest number is 6e-8, and gradients are smaller than that. Masters stay in fp32; gradients are
scaled by a power of two on their way back, and down again, exactly, before the update. The scale
halves when a gradient overflows, and the step is left out; it doubles after a long time without.
Source: Mixed Precision Training (Micikevicius et al., arXiv 1710.03740). Chapter: loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from nanogpt2.errors import UserError
from nanogpt2.optim import MuonAdamW
from nanogpt2.training.ranks import ALONE, Ranks

FIRST, MOST = 2.0**16, 2.0**24
GROW_EVERY = 2000
"""steps in a row without an overflow, after which the scale doubles"""


class LossScale(nn.Module):
    """What ``fit`` is given for both model and optimizer; both are the given ones, unchanged.

    Called, it gives the model's loss, whose gradients come back scaled. Its ``step`` takes the
    scale out of them and lets the optimizer step, unless they overflowed on any rank: then no rank
    steps.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MuonAdamW,
        ranks: Ranks = ALONE,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.ranks, self.tell = model, optimizer, ranks, tell
        self.scale = FIRST
        self.clean = 0
        """steps taken since the scale last changed"""
        self.skipped = 0
        """steps left out in the whole run"""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's: what schedules set."""
        return self.optimizer.param_groups

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss as it is, with ``scale`` times its gradient."""
        scaled: Tensor = _ScaleGradient.apply(self.model(inputs, targets), self.scale)
        return scaled

    @torch.no_grad()
    def step(self) -> None:
        """One step, or none where a gradient overflowed; UserError where no scale helps."""
        gradients = []
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad = p.grad.coalesce() if p.grad.is_sparse else p.grad
                gradients.append(p.grad)
        numbers = [g.values() if g.is_sparse else g for g in gradients]
        overflow = not math.isfinite(get_total_norm(numbers).item())
        if self.ranks.sum([float(overflow)])[0]:
            self._skip()
            return
        for gradient in gradients:
            gradient.mul_(1 / self.scale)  # a power of two: nothing is rounded
        self.optimizer.step()
        self.clean += 1
        if self.clean >= GROW_EVERY and self.scale < MOST:
            self.scale, self.clean = 2 * self.scale, 0

    def _skip(self) -> None:
        if self.scale <= 1:
            raise UserError(
                "the gradients overflow in fp16 however the loss is scaled; use precision fp32"
            )
        self.scale, self.clean, self.skipped = self.scale / 2, 0, self.skipped + 1
        self.tell(f"a gradient overflowed in fp16: step left out, the loss scale is {self.scale:g}")

    def record(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {"scale": self.scale, "clean": self.clean, "skipped": self.skipped}

    def take_up(self, record: Mapping[str, Any]) -> None:
        """Go on from a ``record``; the optimizer, just restored, has not counted what it missed."""
        self.scale = float(record["scale"])
        self.clean, self.skipped = int(record["clean"]), int(record["skipped"])
        for group in self.param_groups:
            group["step"] -= self.skipped


class _ScaleGradient(torch.autograd.Function):
    """x forward; the gradient times ``scale`` backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
