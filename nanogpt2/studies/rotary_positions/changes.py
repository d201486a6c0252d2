"""Changed models of the chapter on rotary positions: turns gone wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.model.rope import rotate


def rotate_neighbours(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The other layout: pairs (2i, 2i + 1), as in RoFormer's own equations."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    x1, x2 = x_BTHD[..., 0::2], x_BTHD[..., 1::2]
    return torch.stack((x1 * cos + x2 * sin, x2 * cos - x1 * sin), -1).flatten(-2).to(x_BTHD.dtype)


def _rotating(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Patch:
    """Models turn by ``function`` within the block, and by the package's ``rotate`` after it."""
    return patched("nanogpt2.model.attention.rotate", function)


def wrong_pairs() -> Patch:
    """Failure: neighbours are paired where the model means halves."""
    return _rotating(rotate_neighbours)


def keys_unturned() -> Patch:
    """Failure: queries are rotated and keys are forgotten."""
    is_query = itertools.cycle((True, False))  # the model turns q, then k, in every layer
    return _rotating(lambda x, cos, sin: rotate(x, cos, sin) if next(is_query) else x)


def queries_late(by: int = 1) -> Patch:
    """Failure: queries believe that they stand ``by`` positions further on than they do."""
    is_query = itertools.cycle((True, False))

    def off(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = rotate(x, cos, sin)
        if not next(is_query):
            return turned
        # one more turn by the angle of position ``by``: row ``by`` of the same table
        return rotate(turned, cos[by : by + 1], sin[by : by + 1])

    return _rotating(off)
