"""What a machine needs to be fast: the definitions' own signatures, and the one choice of form.

The files beside this one compute what ``polar_express``, ``take_step`` and ``adamw_update`` define,
by other roads. ``Steps`` alone says which is taken where. ``python -m benchmarks.muon`` measures
what each buys. Chapter: muon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nanogpt2.optim.adamw import adamw_update
from nanogpt2.optim.fast.adamw import adamw_compiled, adamw_in_pieces
from nanogpt2.optim.fast.muon import take_step_in_bands
from nanogpt2.optim.fast.polar_express import polar_express_by_halves
from nanogpt2.optim.muon import muon_update, take_step
from nanogpt2.optim.newton_schulz import newton_schulz
from nanogpt2.optim.polar_express import polar_express

LARGE_SIDE = 512
"""from this shorter side on, a processor gains by leaving out half of a symmetric product"""
LARGE_MATRIX = 1 << 18
"""elements from which on one matrix keeps a processor busy, so that stacking only costs copies"""


class Steps:
    """The two step functions in the form that suits ``device``.

    Args:
        device: where the parameters are.
        compiled: compile both, at their first call.
        dtype: precision of Muon's products.
    """

    def __init__(self, device: torch.device, compiled: bool, dtype: torch.dtype) -> None:
        on_processor = device.type == "cpu"
        self.dtype, self.orthogonalize = dtype, by_size if on_processor else polar_express
        self.take_step = take_step_in_bands if on_processor else take_step
        self.adamw: Callable[..., None] = adamw_in_pieces if on_processor else adamw_update
        self._muon: Callable[..., None] = muon_update
        if compiled:  # a compiler makes its own of the definitions; by halves it cannot follow
            self.adamw, self.orthogonalize = adamw_compiled(), polar_express
            self.take_step = take_step
            self._muon = torch.compile(muon_update, fullgraph=True, dynamic=False)

    def muon(
        self, group: Mapping[str, Any], w: Tensor, g: Tensor, momenta: Tensor, seconds: Tensor,
        momentum: Tensor, lr: Tensor, decay: Tensor, weight2: Tensor,
    ) -> None:  # fmt: skip
        """``muon_update`` in the form that suits, with what ``group`` chooses."""
        by_newton = group["polynomial"] == "newton_schulz"
        orthogonalize = newton_schulz if by_newton else self.orthogonalize
        if not group["cautious"]:  # plain decay: of every weight, wherever the update goes
            w.mul_(1 - lr * decay)
            decay = torch.zeros(())
        choices = (group[k] for k in ("iterations", "divisor", "equalize_rows", "fix_norm"))
        self._muon(
            w, g, momenta, seconds, momentum, lr, decay, weight2, *choices,
            self.dtype, orthogonalize, self.take_step,
        )  # fmt: skip


def by_size(g: Tensor, iterations: int, divisor: float, dtype: torch.dtype) -> Tensor:
    """``polar_express`` on a processor: large matrices by halves of symmetric products."""
    large = min(g.shape[-2:]) >= LARGE_SIDE
    return (polar_express_by_halves if large else polar_express)(g, iterations, divisor, dtype)


def in_place(matrix: Tensor, world_size: int) -> bool:
    """Whether to update ``matrix`` where it stands, by itself, and not in a stack of its shape.

    A stack is for a device that small matrices leave idle, and for dealing out over ranks. It
    costs copies: a fifth more memory at the peak of a d12 step on a processor.
    """
    return world_size == 1 and matrix.device.type == "cpu" and matrix.numel() >= LARGE_MATRIX
