"""Which ideas are tried again, and what was expected of each and reported."""

from __future__ import annotations

from dataclasses import dataclass

from nanogpt2.lab.variants import dynamic_tanh
from nanogpt2.lab.variations import Variation
from nanogpt2.studies.what_did_not_work import ideas


@dataclass(frozen=True, kw_only=True)
class Idea(Variation):
    """One idea: what exactly is changed, and what was reported."""

    form: str
    reported: str
    sign: str
    """of the loss at equal steps, as reported; "" where none was said"""


IDEAS = {
    "swiglu": Idea(
        "SwiGLU", "0", "at equal size its paper gains little, and squared ReLU gains too",
        form="a gated MLP of three matrices, about as large",
        reported="d12, d24: worse per step", sign="+",
        settings={"activation": "swiglu"},
    ),
    "half_rotary": Idea(
        "rotary positions on half of the channels", "0", "rows of 256 tokens need few frequencies",
        form="the other half of each head stands still",
        reported="no gain", sign="0",
        within=ideas.half_rotary,
    ),
    "inside_documents": Idea(
        "attention kept inside documents", "-",
        "rows are short, so that half of what a token sees is of another document",
        form="no token sees one of another document of its row",
        reported="d16: 0.85407 against 0.85427, noise", sign="0",
        within=ideas.inside_documents,
    ),
    "two_at_once": Idea(
        "two tokens predicted at once", "+",
        "a small model has nothing to spare for a second task; large ones gained (2404.19737)",
        form="in training, one matrix more reads off the token after the next; the losses add",
        reported="d12: equal or slightly worse per step", sign="0",
        within=ideas.two_at_once,
    ),
    "adamw_every_second": Idea(
        "AdamW at every second step", "+",
        "tables and head learn fast and early; half of their moves are gone",
        form="its parameters move half as often, by twice the batch, at 1.41 times the rate",
        reported="d12: each step worse", sign="+",
        within=ideas.adamw_every_second,
    ),
    "dyt": Idea(
        "DyT in the place of norms", "+",
        "a fixed alpha cannot follow a stream that grows; reported so for every variant",
        form="gain tanh(alpha x) + bias for every norm of the stream; queries and keys keep theirs",
        reported="d12: every variant worse per step", sign="+",
        within=dynamic_tanh,
    ),
    "bigram_table": Idea(
        "a table for pairs of tokens", "-", "won at d12 on every axis, and our model is smaller",
        form="hashed pairs have rows of their own, added to the token's",
        reported="d12: won on every axis; d25: tiny, gone by the clock", sign="-",
        within=ideas.bigram_table,
    ),
}  # fmt: skip
"""key -> idea; each is compared with the top of the ladder"""
