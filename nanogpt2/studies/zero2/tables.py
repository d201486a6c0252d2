"""Formulas and tables of the chapter on ZeRO-2: memory, bytes on the wire, what ranks found."""

from __future__ import annotations

import math
from typing import Any

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.memory import matrix_shapes, optimizer_bytes, parameter_bytes, table_shapes
from nanogpt2.recipes import get_recipe
from nanogpt2.studies.zero2.ranks import Found


def stages_memory(
    depth: int, ranks: int, bf16_tables: bool = True
) -> dict[str, tuple[float, float, float]]:
    """GB of parameters, gradients, optimizer state on each rank, by what is dealt out.

    By the planner's formulas for run 1's recipe; activations come on top, the same in every row.
    """
    recipe = get_recipe("run1")
    model = dial(depth, recipe).model
    p = parameter_bytes(model, bf16_tables) / 1e9
    whole, share = (optimizer_bytes(model, recipe, n) / 1e9 for n in (1, ranks))
    return {
        "data parallel": (p, p, whole),
        "ZeRO-1": (p, p, share),
        "ZeRO-2": (p, p / ranks, share),
        "ZeRO-3": (p / ranks, p / ranks, share),
    }


def wire_bytes(model: GPTConfig, ranks: int, bf16_tables: bool) -> int:
    """Bytes of all buffers of one step: each tensor twice, padded to whole shares.

    What ``expected_traffic`` says of an optimizer, from the configuration alone. Small parameters
    (the scalars) are all-reduced, once and in fp32.
    """
    total = 0
    for (rows, cols), number in matrix_shapes(model).items():
        total += 2 * 4 * math.ceil(number / ranks) * ranks * rows * cols
    tables = table_shapes(model)
    head = 0 if model.tied_head else 1
    for i, (rows, cols) in enumerate(tables):
        is_head = head and i == 1
        size = 2 if bf16_tables and not is_head else 4
        total += 2 * size * math.ceil(rows / ranks) * ranks * cols
    return total + 4 * 2 * model.n_layer * model.residual_scalars


def sent_bytes(model: GPTConfig, ranks: int, bf16_tables: bool = True) -> float:
    """Bytes that one rank sends in a step, in a ring: all that passes any one place of it."""
    return wire_bytes(model, ranks, bf16_tables) * (ranks - 1) / ranks


LINKS = {
    "NVLink, 8 GPUs in a node": (450.0, 8),
    "2 nodes, 8 cards of InfiniBand NDR each": (8 * 50.0, 16),
    "2 nodes, one card of 100 Gb/s each": (100 / 8, 16),
    "2 PCs, 10 Gb/s": (10 / 8, 2),
}
"""GB/s in one direction where the ring is narrowest, and ranks. Between nodes that is all of a
node's cards: NCCL lays a ring over each, so that a card carries a share of the bytes"""


def bandwidth_rows(step_seconds: float, depth: int = 24) -> list[list[Any]]:
    """Rows: link, GB/s, ranks, GB sent in a step, seconds, share of a step of so many ranks.

    ``step_seconds`` is a step on 8 ranks; more share the same batch, so theirs is shorter.
    """
    model, rows = dial(depth, "run1").model, []
    for name, (speed, ranks) in LINKS.items():
        sent = sent_bytes(model, ranks) / 1e9
        seconds = sent / speed
        share = f"{seconds / (step_seconds * 8 / ranks):.0%}"
        rows.append([name, f"{speed:.4g}", ranks, f"{sent:.2f}", f"{seconds:.3f}", share])
    return rows


def traffic_rows(rank: dict[str, Any]) -> list[list[Any]]:
    """Rows: collective, calls and MB counted by a rank, by formula."""
    return [
        [
            name.replace("_", "-"),
            rank["calls"].get(name, 0),
            rank["expected calls"][name],
            rank["bytes"].get(name, 0) / 1e6,
            rank["expected bytes"][name] / 1e6,
        ]
        for name in ("reduce_scatter", "all_gather", "all_reduce")
    ]


def tour_rows(found: Found) -> list[list[str]]:
    """Rows: collective, what each rank holds after it."""
    names = list(found.ranks[0])
    return [
        [name, *(" ".join(f"{x:g}" for x in rank[name]) for rank in found.ranks)] for name in names
    ]
