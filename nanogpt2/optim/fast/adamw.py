"""AdamW in pieces that fit into a processor's cache, and AdamW compiled. Chapter: muon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.optim.adamw import adamw_update

SPARSE_PIECES = 16
PIECE = 1 << 17
"""elements: parameter, gradient, both moments and what is worked out from them stay in the cache"""


def adamw_in_pieces(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
    """``adamw_update``, some rows at a time: a large table passes through memory once, not often.

    A table's ``g`` may be sparse (and coalesced): it is never whole in memory.
    """
    rows = max(1, PIECE // p[0].numel())
    if g.is_sparse:  # which takes long to cut: a few megabytes of it at a time
        for first in range(0, len(p), SPARSE_PIECES * rows):
            count = min(SPARSE_PIECES * rows, len(p) - first)
            here, avg, avg_sq = (t.narrow(0, first, count) for t in (p, exp_avg, exp_avg_sq))
            dense = g.narrow_copy(0, first, count).to_dense()
            adamw_in_pieces(here, dense, avg, avg_sq, *rest)
        return
    for first in range(0, len(p), rows):
        count = min(rows, len(p) - first)
        here, avg, avg_sq = (t.narrow(0, first, count) for t in (p, exp_avg, exp_avg_sq))
        adamw_update(here, g.narrow(0, first, count), avg, avg_sq, *rest)


def adamw_compiled() -> Callable[..., None]:
    """``adamw_update`` as one compiled pass for tensors of any size; compiled when first called."""
    update: Callable[..., None] = torch.compile(adamw_update, fullgraph=True, dynamic=True)

    def flat_update(p: Tensor, g: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
        if p.numel() == 1:  # torch 2.11 compiles a kernel for it that an H100 refuses to launch
            return adamw_update(p, g, exp_avg, exp_avg_sq, *rest)
        # ``view`` raises where an update would not reach the tensor
        flat = (p.view(-1), g.to_dense().reshape(-1), exp_avg.view(-1), exp_avg_sq.view(-1))
        update(*(t.data for t in flat), *rest)  # no view relations for dynamo to guard

    return flat_update
