"""A step of the run by formula: what its arithmetic takes on an H100, and what its traffic takes.

The roofline model (Williams, Waterman and Patterson, Communications of the ACM, 2009): a part of a
step takes at least its FLOPs over the peak, and at least its bytes over the bandwidth of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nanogpt2 import reported
from nanogpt2.config import GPTConfig
from nanogpt2.costs import RECORD_DEVICES, polar_express_flops
from nanogpt2.depth import attention_flops, dial, flops_per_token, parameter_counts
from nanogpt2.memory import matrix_shapes, parameter_bytes

PEAK, BANDWIDTH = float(reported.H100_PEAK), float(reported.H100_BANDWIDTH)
LINK = reported.H100_NVLINK / 2
"""bytes a second to the other GPUs of a node, one way"""
LAYER_VALUES = {
    "scalars and norm": 5,
    "rotation and QK-norm": 4,
    "value embedding": 1.5,
    "attention added, norm": 4,
    "relu2": 8,
}
"""numbers read and written per token, layer and channel by the passes between a layer's products,
forward, each pass fused into one; the backward pass reads and writes about twice as many"""
LOGIT_BYTES = 8
"""per logit, beside the products: bf16 logits written and read twice, their gradient written"""
CAST_BYTES = 5
"""per number that goes into an fp8 product: read in bf16 for its largest, read again, written"""
STATE_BYTES = 28
"""per parameter in a rank's care: its gradient read; itself and two moments read and written"""
SCORE_PASSES = 8
"""reads and writes of each score where scores are kept in memory, forward and backward"""
ROWS = 16
"""of a forward pass in the records"""


@dataclass(frozen=True)
class Part:
    """A part of one GPU's share of a step."""

    name: str
    flops: float
    bytes: float
    peak: float = PEAK
    bandwidth: float = BANDWIDTH

    @property
    def seconds(self) -> float:
        """At the least."""
        return max(self.flops / self.peak, self.bytes / self.bandwidth)

    @property
    def bound(self) -> str:
        """What it waits for."""
        return "arithmetic" if self.flops / self.peak > self.bytes / self.bandwidth else "memory"


def step_parts(
    model: GPTConfig, tokens: int, rows: int = ROWS, precision: str = "bf16", scores: str = "tiles"
) -> list[Part]:
    """The parts of a step of ``tokens`` on each of eight H100s, ``rows`` rows in a forward pass.

    Args:
        model: sizes and switches.
        tokens: of this GPU's share of the step.
        precision: of the products in blocks and head, bf16 or fp8.
        scores: attention's, in "tiles" that stay on the chip, or in "memory".
    """
    counts, shapes, T = parameter_counts(model), matrix_shapes(model), model.sequence_len
    layers, C, V = model.n_layer, model.n_embd, model.padded_vocab_size
    passes = max(1, tokens // (rows * T))
    head, sides = V * C, sum((r + c) * n for (r, c), n in shapes.items())
    faster = 2 if precision == "fp8" else 1
    size = 2 / faster  # bytes of a number that goes into a product; out of it come two
    products = (2 * size + 2) * (passes * counts["matrices"] + tokens * sides)
    owned = (counts["total"] - counts["scalars"]) / RECORD_DEVICES
    muon = sum(n * polar_express_flops(*shape) for shape, n in shapes.items()) / RECORD_DEVICES
    sent = 2 * (1 - 1 / RECORD_DEVICES) * parameter_bytes(model, bf16_tables=True)
    parts = [
        Part("products in blocks", 6 * counts["matrices"] * tokens, products, PEAK * faster),
        Part("head's products", 6 * head * tokens, 6 * V * tokens, PEAK * faster),
        _attention(model, tokens, scores),
        Part("norms, sums, relu2", 0, 3 * sum(LAYER_VALUES.values()) * 2 * tokens * layers * C),
        Part("loss over logits", 0, LOGIT_BYTES * V * tokens),
        Part("optimizer", muon, STATE_BYTES * owned),
        Part("exchange", 0, sent, bandwidth=LINK),
    ]
    if precision == "fp8":
        numbers = tokens * (sides + V + C) + passes * (counts["matrices"] + head)
        parts.append(Part("casts to fp8", 0, CAST_BYTES * numbers))
    return parts


def _attention(model: GPTConfig, tokens: int, scores: str) -> Part:
    """Two products forward; backward five, as tiles are not kept but computed again."""
    T, width = model.sequence_len, model.n_head * model.head_dim
    reach = [min(left, T - 1) for left, _ in model.window_sizes()]
    if scores == "memory":  # all pairs, masked, and nothing computed twice
        pairs = float(model.n_layer * T)
        moved = SCORE_PASSES * 2 * pairs * model.n_head
        return Part("attention", 12 * width * pairs * tokens, moved * tokens)
    pairs = sum(w + 1 - w * (w + 1) / (2 * T) for w in reach)
    return Part("attention", 14 * width * pairs * tokens, 12 * 2 * width * model.n_layer * tokens)


def record_step(name: str = "run1") -> tuple[GPTConfig, int, float]:
    """A record's model, its tokens a step on each GPU, and the mean seconds of its steps."""
    at = dial(recipe=name)
    hours = reported.LEADERBOARD[name].hours
    seconds = float(reported.RUN1_SECONDS) if name == "run1" else 3600 * hours
    return at.model, at.batch_tokens // RECORD_DEVICES, seconds / at.iterations


def part_rows(parts: list[Part]) -> list[list[Any]]:
    """Rows: part, TFLOP, GB, FLOPs a byte, what it waits for, milliseconds at the least."""
    return [
        [
            part.name,
            f"{part.flops / 1e12:.1f}",
            f"{part.bytes / 1e9:.1f}",
            f"{part.flops / part.bytes:,.0f}",
            part.bound,
            f"{1000 * part.seconds:.0f}",
        ]
        for part in parts
    ]


def mfu_rows() -> list[list[str]]:
    """One run, one clock: MFU of run 1 by five ways of counting."""
    model, tokens, seconds = record_step()
    rate, counts = tokens / seconds, parameter_counts(model)
    ours, scores = flops_per_token(model), attention_flops(model)
    every = attention_flops(replace(model, window_pattern="L"))
    tables = counts["wte"] + counts["value_embeddings"]
    ways = {
        "as this book counts": (ours, PEAK),
        "tables counted as if they were multiplied": (ours + 6 * tables, PEAK),
        "attention counted without its windows": (ours - scores + every, PEAK),
        "attention left out: 6 N": (ours - scores, PEAK),
        "against the peak with sparsity": (ours, 2 * PEAK),
    }
    return [[name, f"{flops * rate / peak:.1%}"] for name, (flops, peak) in ways.items()]
