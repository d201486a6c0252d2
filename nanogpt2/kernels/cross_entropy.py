"""Cross-entropy over softcapped logits: its definition.

It holds all logits at once, several times over for the backward pass: at 32,768 tokens and a
vocabulary of 32,768 each such table is 4.3 GB in fp32. ``fast.chunked_loss`` gives the same numbers
without them; ``loss`` chooses. The softcap is Gemma 2's (arXiv 2408.00118).
Chapter: where_the_time_goes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1
"""a target with this value counts for nothing"""


def softcap_logits(logits: Tensor, softcap: float) -> Tensor:
    """c tanh(z / c); 0 leaves the logits as they are."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def cross_entropy(
    logits_NV: Tensor, targets_N: Tensor, softcap: float, reduction: str = "mean"
) -> Tensor:
    """Nats of the targets under the logits, softcapped in fp32; targets of -1 count for nothing."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    z = softcap_logits(logits_NV.to(wide), softcap)
    return F.cross_entropy(z, targets_N, ignore_index=IGNORE, reduction=reduction)
