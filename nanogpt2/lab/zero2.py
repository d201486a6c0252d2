"""Pictures and formulas of the chapter on ZeRO-2."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.lab.drawing import drawing, words
from nanogpt2.lab.page import Html
from nanogpt2.lab.patching import patched
from nanogpt2.lab.style import COLOURS, figure, show, style
from nanogpt2.lab.zero2_ranks import Found, run_ranks
from nanogpt2.memory import matrix_shapes, optimizer_bytes, parameter_bytes, table_shapes
from nanogpt2.optim import sharded
from nanogpt2.recipes import get_recipe

__all__ = [
    "Found",
    "bandwidth_rows",
    "memory_frame",
    "ring_frame",
    "root_cause",
    "run_ranks",
    "stages_memory",
    "summed_gradients",
    "timeline",
    "tour_rows",
    "traffic_rows",
    "wire_bytes",
]

WORLD = 4
PHASES = ("launch", "update", "finish")


def ring_parts(step: int, world: int = WORLD) -> list[list[set[int]]]:
    """Whose numbers are summed in chunk c of rank r after ``step`` rounds of a ring: [r][c].

    W - 1 rounds of reduce-scatter, then W - 1 of all-gather; each rank sends one chunk a round.
    """
    held = [[{rank} for _ in range(world)] for rank in range(world)]
    for s in range(step):
        gather = s >= world - 1
        sent = [(r, (r - s) % world) for r in range(world)]
        sent = [(r, (r + 1 - (s - world + 1)) % world) for r in range(world)] if gather else sent
        parts = [(r, c, set(held[r][c])) for r, c in sent]
        for r, c, part in parts:
            following = (r + 1) % world
            held[following][c] = part if gather else held[following][c] | part
    return held


def ring_frame(round: int) -> tuple[str, str]:
    """Four ranks in a ring, four chunks each, after so many rounds; a frame for ``explore``."""
    held, body, told = ring_parts(round), [], []
    for r in range(WORLD):
        body.append(words(112 + 96 * r, 20, f"rank {r}", "middle"))
        if r < WORLD - 1:
            body.append(words(160 + 96 * r, 20, "→", "middle"))
        for c in range(WORLD):
            whole = len(held[r][c]) == WORLD
            fill = "var(--ng-c1)" if whole else "var(--ng-c0)"
            share = 0.15 + 0.6 * len(held[r][c]) / WORLD
            text = "+".join(str(n) for n in sorted(held[r][c]))
            body.append(
                f'<rect x="{68 + 96 * r}" y="{34 + 56 * c}" width="88" height="46" rx="5" '
                f'fill="{fill}" fill-opacity="{share:.2f}" stroke="currentColor" '
                'stroke-opacity=".4"/>'
                f"{words(112 + 96 * r, 63 + 56 * c, text, 'middle', 15)}"
            )
        told.append(f"rank {r}: " + ", ".join(str(len(part)) for part in held[r]))
    body += [words(4, 63 + 56 * c, f"part {c}", size=15) for c in range(WORLD)]
    phase = (
        "at first" if round == 0
        else f"reduce-scatter, round {round} of {WORLD - 1}" if round < WORLD
        else f"all-gather, round {round - WORLD + 1} of {WORLD - 1}"
    )  # fmt: skip
    body.append(words(68, 282, phase))
    alt = f"{phase}: summands in each of four parts. {'; '.join(told)}; complete means 4."
    return drawing("".join(body), 292), alt


def tour_rows(found: Found) -> list[list[str]]:
    """Rows: collective, what each rank holds after it."""
    names = list(found.ranks[0])
    return [
        [name, *(" ".join(f"{x:g}" for x in rank[name]) for rank in found.ranks)] for name in names
    ]


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


def memory_frame(depth: int, ranks: int, tables: str) -> tuple[Figure, str]:
    """``stages_memory`` as bars; a frame for ``explore``."""
    found = stages_memory(depth, ranks, tables == "bf16")
    fig, axes = figure(height=2.5)
    names = list(found)
    with style():
        left = [0.0] * len(names)
        for i, part in enumerate(("parameters", "gradients", "optimizer")):
            values = [found[name][i] for name in names]
            axes.barh(names, values, left=left, color=COLOURS[i], label=part, height=0.6)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="GB on each rank")
        axes.grid(False, axis="y")
        fig.legend(loc="outside upper left", ncols=3)
    totals = ", ".join(f"{name} {sum(found[name]):.1f}" for name in names)
    return fig, f"Depth {depth} on {ranks} ranks, tables in {tables}. GB on each: {totals}."


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


LINKS = {
    "NVLink, 8 GPUs in a node": (450.0, 8),
    "InfiniBand NDR, a card for each GPU": (50.0, 16),
    "100 Gb/s Ethernet for a node of 8": (100 / 8 / 8, 16),
    "10 Gb/s, two PCs": (10 / 8, 2),
}
"""GB/s for each GPU in one direction, and ranks"""


def bandwidth_rows(step_seconds: float, depth: int = 24) -> list[list[Any]]:
    """Rows: link, GB/s, ranks, GB sent by each in a step, seconds, share of a step of so many.

    ``step_seconds`` is a step on 8 ranks; more share the same batch, so theirs is shorter.
    """
    model, rows = dial(depth, "run1").model, []
    for name, (speed, ranks) in LINKS.items():
        sent = wire_bytes(model, ranks, True) * (ranks - 1) / ranks / 1e9
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


def timeline(ranks: Sequence[dict[str, Any]], caption: str = "") -> Html:
    """When each rank was in which phase of the step, by its own clock."""
    fig, axes = figure(height=2.6)
    spent = {phase: 0.0 for phase in PHASES}
    with style():
        for lane, rank in enumerate(ranks):
            for event in rank["events"]:
                width = event["stop"] - event["start"]
                spent[event["phase"]] += width / len(ranks)
                colour = COLOURS[PHASES.index(event["phase"])]
                axes.barh(
                    [lane], [width], left=[event["start"]], color=colour, height=0.62,
                    edgecolor="white", linewidth=0.4,
                )  # fmt: skip
        axes.set(xlabel="seconds since the backward pass ended", yticks=range(len(ranks)))
        axes.set_yticklabels([f"rank {n}" for n in range(len(ranks))])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        for i, phase in enumerate(("1 launch", "2 update", "3 finish")):
            axes.barh([0], [0], color=COLOURS[i], label=phase)
        fig.legend(loc="outside upper left", ncols=3)
    told = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in spent.items())
    alt = f"A lane for each of {len(ranks)} ranks with the three phases of the step. Mean: {told}."
    return show(fig, alt, caption)


def root_cause(found: Found) -> str:
    """The launcher's own words on which rank failed first, without its clock."""
    block = found.said.rpartition("Root Cause")[2]
    rank = re.search(r"rank\s*: (\d+)", block)
    code = re.search(r"exitcode\s*: (-?\d+)", block)
    name = re.search(r"\((SIG\w+)\)", block)
    if rank is None or code is None:
        return "the launcher names no rank"
    killed = f" ({name.group(1)})" if name else ""
    return f"rank {rank.group(1)}, exit code {code.group(1)}{killed}"


@contextmanager
def summed_gradients(world: int = WORLD) -> Iterator[None]:
    """Failure: gradients of ``world`` ranks are added and never divided by their number."""
    right = sharded.gradient_of

    def summed(p: nn.Parameter) -> Tensor:
        return right(p) * world

    with patched(sharded, "gradient_of", summed):
        yield
