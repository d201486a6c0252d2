"""AdamW in pieces that fit into a processor's cache, and AdamW compiled. Chapter: muon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.optim.adamw import adamw_update

PIECE = 1 << 17
"""elements: parameter, gradient, both moments and what is worked out from them stay in the cache"""


def adamw_in_pieces(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
    """``adamw_update``, some rows at a time: a large table passes through memory once, not often.

    A table's ``g`` may be sparse (and coalesced): it is never whole in memory.
    """
    rows = max(1, PIECE // p[0].numel())
    for first in range(0, len(p), rows):
        count = min(rows, len(p) - first)
        here, avg, avg_sq = (t.narrow(0, first, count) for t in (p, exp_avg, exp_avg_sq))
        cut = g.narrow_copy if g.is_sparse else g.narrow
        adamw_update(here, cut(0, first, count).to_dense(), avg, avg_sq, *rest)


def adamw_compiled() -> Callable[..., None]:
    """``adamw_update`` as one compiled pass for tensors of any size; compiled when first called."""
    update: Callable[..., None] = torch.compile(adamw_update, fullgraph=True, dynamic=True)

    def flat_update(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
        # ``view`` raises where an update would not reach the tensor
        flat = (p.view(-1), g.to_dense().reshape(-1), exp_avg.view(-1), exp_avg_sq.view(-1))
        update(*(t.data for t in flat), *rest)  # no view relations for dynamo to guard

    return flat_update
