"""Bits per byte of held-out text: a loss that does not depend on the tokenizer.

Nats of the targets over ln 2 times the bytes they stand for; special tokens stand for no bytes and
are left out, and so are ignored targets. Chapter: tokens_and_rows.

    python -m nanogpt2.evals.bits_per_byte --checkpoint runs/laptop --data DIR
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nanogpt2.errors import StopRequested, UserError, run_command
from nanogpt2.evals.modes import evaluating
from nanogpt2.files import named_path


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


def main(argv: Sequence[str] | None = None) -> int:
    """The command: a model's bits per byte of the text that is held out in a folder."""
    # the command stands on rooms above which the measure itself does not reach
    from nanogpt2.evals.held_out import held_out_batches, require_held_out
    from nanogpt2.inference.engine import load_engine

    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.evals.bits_per_byte",
        description="Measure a model on the held-out documents of a folder: bits per byte.",
    )
    add = parser.add_argument
    add("--checkpoint", type=named_path, required=True, help="folder of a run or of a checkpoint")
    add("--tokenizer", type=named_path, help="folder of its tokenizer (default: the run's own)")
    add("--data", type=named_path, required=True, help="folder of parquet shards")
    add("--tokens", type=int, default=20 * 2**19, help="at most so many (default: 10,485,760)")
    add("--rows", type=int, default=16, help="of a forward pass (default: 16)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="of products")
    options = parser.parse_args(argv)
    for name in ("tokens", "rows"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least 1")
    engine = load_engine(options.checkpoint, options.device, options.dtype, options.tokenizer)
    length = engine.model.config.sequence_len
    require_held_out(options.data, engine.tokenizer, length)
    batches = list(
        held_out_batches(options.data, engine.tokenizer, options.tokens, options.rows, length)
    )
    value = bits_per_byte(engine.model, batches, engine.tokenizer.token_bytes)
    tokens = sum(targets.numel() for _, targets in batches)
    print(f"{value:.4f} bits per byte over {tokens:,} tokens")
    return 0


if __name__ == "__main__":
    run_command(main)
