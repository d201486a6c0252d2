"""AdamW over flat tensors: in pieces that fit into a processor's cache, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.optim.adamw import adamw_update

PIECE = 1 << 17
"""elements: parameter, gradient, both moments and what is worked out from them stay in the cache"""


def adamw_in_pieces(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
    """``adamw_update``, stretch by stretch: a large table passes through memory once, not often."""
    pieces = (vector.split(PIECE) for vector in _flat(p, g, exp_avg, exp_avg_sq))
    for piece in zip(*pieces, strict=True):
        adamw_update(*piece, *rest)


def adamw_compiled() -> Callable[..., None]:
    """``adamw_update`` as one compiled pass for tensors of any size; compiled when first called."""
    update: Callable[..., None] = torch.compile(adamw_update, fullgraph=True, dynamic=True)

    def flat_update(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
        update(*_flat(p, g, exp_avg, exp_avg_sq), *rest)

    return flat_update


def _flat(p: Tensor, g: Tensor, *state: Tensor) -> list[Tensor]:
    """All as vectors; what is updated stays in its memory (``view`` raises where it could not)."""
    vectors = (p.view(-1), g.reshape(-1), *(tensor.view(-1) for tensor in state))
    return [vector.data for vector in vectors]  # no view relations for dynamo to guard
