"""Measurements of the chapter on rotary positions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from nanogpt2.lab.small_data import SmallData, small_data
from nanogpt2.lab.small_run import SmallRun
from nanogpt2.lab.timing import median_seconds
from nanogpt2.model.gpt import GPT
from nanogpt2.model.rope import rope_tables, rotate
from nanogpt2.studies.rotary_positions.pictures import BASE, frequencies, turned_score


def score_errors(
    distance: int = 10, positions: int = 8192, head_dim: int = 128
) -> tuple[list[int], dict[str, list[float]]]:
    """Error of one score with tables rounded to bf16, at ever later positions.

    Returns the key's positions, and by name the errors relative to the two lengths.
    """
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 1, head_dim, generator=generator).double() for _ in range(2))
    angle = torch.outer(torch.arange(positions).double(), frequencies(BASE, head_dim))
    exact = (angle.cos(), angle.sin())
    rounded = [t.double() for t in rope_tables(positions, head_dim, BASE)]
    starts = list(range(0, positions - distance, 37))
    scale, errors = float(q.norm() * k.norm()), []
    for at in starts:
        near, true = (turned_score(q, k, at + distance, at, tables) for tables in (rounded, exact))
        errors.append((near - true) / scale)
    return starts, {"tables in bf16": errors}


def time_rotation(width: int, tokens: int = 1024, repeats: int = 5) -> dict[str, float]:
    """Median seconds of turning q and k of one layer, and of that layer's four projections."""
    x = torch.randn(1, tokens, width)
    q = x.view(1, tokens, -1, 128) if width % 128 == 0 else x.view(1, tokens, 1, width)
    weight = torch.randn(width, width) / math.sqrt(width)
    tables = rope_tables(tokens, q.size(-1), BASE, dtype=torch.float32)
    parts: dict[str, Callable[[], Any]] = {
        "turning queries and keys": lambda: (rotate(q, *tables), rotate(q, *tables)),
        "projections q, k, v, out": lambda: [x @ weight for _ in range(4)],
    }
    return {name: median_seconds(run, repeats) for name, run in parts.items()}


def verdict(near: float, far: float, margin: float = 0.01) -> int:
    """0, 1 or 2: with distances never trained better, about as well (within 1%), or worse."""
    change = far / near - 1
    return 0 if change < -margin else 2 if change > margin else 1


@contextmanager
def _stretched(model: GPT, length: int) -> Iterator[None]:
    """Within the block the layers with a full window see ``length`` tokens."""
    full = [b.attn for b in model.blocks if b.attn.window >= model.config.sequence_len - 1]
    windows = [attn.window for attn in full]
    for attn in full:
        attn.window = length
    try:
        yield
    finally:
        for attn, window in zip(full, windows, strict=True):
            attn.window = window


@torch.no_grad()
def bpb_by_position(
    model: GPT,
    data: SmallData,
    length: int,
    bucket: int = 64,
    rows: int = 48,
    stretch: bool = False,
) -> dict[int, float]:
    """Held-out bits per byte in stretches of positions: first position -> bits per byte.

    Args:
        length: tokens read at once; may be beyond the model's T.
        stretch: let the layers with a full window see all of it; otherwise every window stays as
            it was in training.
    """
    inputs, targets = data.validation(rows, length)
    pairs = zip(inputs.split(8), targets.split(8), strict=True)
    with _stretched(model, length) if stretch else nullcontext():
        nats = torch.cat([model(x, y, loss_reduction="none").view(len(x), -1) for x, y in pairs])
    sizes = torch.as_tensor(data.tokenizer.token_bytes)[targets]
    nats = nats.double() * (sizes > 0)
    found = {}
    for start in range(0, length, bucket):
        part = slice(start, start + bucket)
        found[start] = float(nats[:, part].sum() / (math.log(2) * sizes[:, part].sum()))
    return found


def reading_further(runs: Sequence[SmallRun]) -> dict[str, dict[int, float]]:
    """Four times the trained length, read with every window as trained, and with all of it seen.

    Returns ``bpb_by_position`` of both by name, means over ``runs``.
    """
    length, found = 4 * runs[0].config.sequence_len, {}
    data = small_data(runs[0].config.vocab_size)
    for name, stretch in (("windows as trained", False), ("windows stretched", True)):
        each = [bpb_by_position(run.model(), data, length, stretch=stretch) for run in runs]
        found[name] = {at: statistics.fmean(one[at] for one in each) for at in each[0]}
    return found
