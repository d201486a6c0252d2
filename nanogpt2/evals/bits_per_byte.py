"""Bits per byte of held-out text: a loss that does not depend on the tokenizer.

Nats of the targets over ln 2 times the bytes they stand for; special tokens stand for no bytes and
are left out, and so are ignored targets. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nanogpt2.errors import StopRequested, UserError
from nanogpt2.evals.modes import evaluating


@torch.inference_mode()
def bits_per_byte(
    model: Any,
    batches: Iterable[Sequence[Any]],
    token_bytes: Tensor | np.ndarray | Sequence[int],
    max_tokens: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> float:
    """Bits per byte of ``model`` on ``batches``; under torch.distributed, on those of all ranks.

    Args:
        model: called as ``model(inputs, targets, loss_reduction="none")``, gives (B * T,) nats.
        batches: each begins with inputs (B, T) and targets (B, T); -1 is an ignored target.
        token_bytes: (vocab_size,) bytes of each token, 0 for special tokens.
        max_tokens: targets to count over all ranks, so that runs compare: each rank stops at its
            share, in the middle of a batch where need be. All batches are read without it.
        stop: asked before each batch; once it is true on one rank, all raise StopRequested.

    A compiled model is given batches of one height only: the last, if shorter, goes to the model
    that was compiled.

    Raises UserError where the batches hold fewer than ``max_tokens`` targets, or no text.
    """
    device = model.device
    bytes_of = torch.as_tensor(np.asarray(token_bytes), dtype=torch.int64).to(device)
    share = _share(max_tokens)
    totals = torch.zeros(4, dtype=torch.float64)  # nats, bytes, targets seen, who was stopped
    seen, height = 0, None
    with evaluating(model):
        for inputs, targets, *_ in batches if share != 0 else ():
            if stop():
                totals[3] = 1
                break
            inputs, targets = inputs.to(device), targets.to(device).flatten()
            height = height or len(inputs)
            asked = model if len(inputs) == height else getattr(model, "_orig_mod", model)
            losses = asked(inputs, targets.view(inputs.shape), loss_reduction="none").flatten()
            if share is not None:
                losses, targets = losses[: share - seen], targets[: share - seen]
            seen += targets.numel()
            length = torch.where(targets >= 0, bytes_of[targets.clamp_min(0)], 0)
            totals[0] += losses[length > 0].cpu().double().sum()  # MPS has no float64
            totals[1] += length.sum().cpu()
            totals[2] += targets.numel()
            if seen == share:
                break
    if dist.is_initialized():
        totals = totals.to(device)
        dist.all_reduce(totals)
    nats, bytes_sum, count, stopped = totals.tolist()
    if stopped:
        raise StopRequested
    if max_tokens is not None and count < max_tokens:
        raise UserError(
            f"the held-out text has {count:,.0f} tokens and {max_tokens:,} were asked for; "
            "ask for fewer, or get more validation data"
        )
    if bytes_sum == 0:
        raise UserError("the held-out text is empty, there is nothing to measure; check the data")
    return nats / (math.log(2) * bytes_sum)


def _share(max_tokens: int | None) -> int | None:
    """Targets that this rank counts."""
    if max_tokens is None or not dist.is_initialized():
        return max_tokens
    each, more = divmod(max_tokens, dist.get_world_size())
    return each + (dist.get_rank() < more)
