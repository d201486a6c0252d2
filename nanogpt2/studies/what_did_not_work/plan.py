"""Which ideas are tried again, what was expected of each, and the runs that this takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanogpt2.lab.seams import Patch
from nanogpt2.lab.trials import Trial
from nanogpt2.lab.variants import dynamic_tanh
from nanogpt2.rungs import TOP, Ladder
from nanogpt2.studies.what_did_not_work import ideas


@dataclass(frozen=True)
class Idea:
    """One idea, and what was thought of it before it was measured."""

    title: str
    form: str
    """what exactly is changed"""
    expected: str
    """sign of bits per byte with it minus without: - a gain, + a loss, 0 not distinguishable"""
    because: str
    reported: str
    sign: str
    """of the loss at equal steps, as reported; "" where none was said"""
    within: Callable[[], Patch] | None = None
    """how the code is changed; None: a switch of the recipe, by the idea's key"""


IDEAS = {
    "swiglu": Idea(
        "SwiGLU",
        "a gated MLP of three matrices, about as large",
        "0",
        "at equal size its paper gains little, and squared ReLU gains too",
        "d12, d24: worse per step",
        "+",
    ),
    "half_rotary": Idea(
        "rotary positions on half of the channels",
        "the other half of each head stands still",
        "0",
        "rows of 256 tokens need few frequencies",
        "no gain",
        "0",
        ideas.half_rotary,
    ),
    "inside_documents": Idea(
        "attention kept inside documents",
        "no token sees one of another document of its row",
        "-",
        "rows are short, so that half of what a token sees is of another document",
        "d16: 0.85407 against 0.85427, noise",
        "0",
        ideas.inside_documents,
    ),
    "two_at_once": Idea(
        "two tokens predicted at once",
        "in training, one matrix more reads off the token after the next; the losses add",
        "+",
        "a small model has nothing to spare for a second task; large ones gained (2404.19737)",
        "d12: equal or slightly worse per step",
        "0",
        ideas.two_at_once,
    ),
    "adamw_every_second": Idea(
        "AdamW at every second step",
        "its parameters move half as often, by twice the batch, at 1.41 times the rate",
        "+",
        "tables and head learn fast and early; half of their moves are gone",
        "d12: each step worse",
        "+",
        ideas.adamw_every_second,
    ),
    "dyt": Idea(
        "DyT in the place of norms",
        "gain tanh(alpha x) + bias for every norm of the stream; queries and keys keep theirs",
        "+",
        "a fixed alpha cannot follow a stream that grows; reported so for every variant",
        "d12: every variant worse per step",
        "+",
        dynamic_tanh,
    ),
    "bigram_table": Idea(
        "a table for pairs of tokens",
        "hashed pairs have rows of their own, added to the token's",
        "-",
        "won at d12 on every axis, and our model is smaller",
        "d12: won on every axis; d25: tiny, gone by the clock",
        "-",
        ideas.bigram_table,
    ),
}  # fmt: skip
"""key -> idea; each is compared with the top of the ladder"""


def trial(key: str, seed: int) -> Trial:
    """The yardstick with one idea."""
    ladder, within = Ladder(), IDEAS[key].within
    return Trial(f"with-{key}", ladder.top if within else ladder.later[key], seed, TOP, within)


def trials(seeds: Sequence[int]) -> list[Trial]:
    """Each seed of all ideas, after the top's, before the next."""
    return [
        each
        for seed in seeds
        for each in (Trial(TOP, Ladder().top, seed), *(trial(key, seed) for key in IDEAS))
    ]
