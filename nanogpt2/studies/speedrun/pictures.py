"""Pictures of the chapter on the speedrun."""

from __future__ import annotations

from nanogpt2 import reported
from nanogpt2.costs import RECORD_DEVICES
from nanogpt2.depth import dial
from nanogpt2.lab.drawing import PAINT, arrow, box, opening, path, words
from nanogpt2.lab.page import Html
from nanogpt2.recipes import get_recipe


def pipeline(caption: str = "") -> Html:
    """The chapter's idea: the whole run from text to score, with its shapes and numbers."""
    at, rows = dial(24, "run1"), get_recipe("run1").device_batch_size
    length = at.model.sequence_len
    passes = at.batch_tokens // (RECORD_DEVICES * rows * length)
    ways = (
        ("documents", "shards of FineWeb-Edu", "fetched once"),
        ("tokens", f"a vocabulary of {at.model.vocab_size:,}", "the tokenizer is trained first"),
        ("rows", f"({rows}, {length:,} + 1) a pass", "documents packed, none padded"),
        (f"{RECORD_DEVICES} ranks x {passes} passes", f"{at.batch_tokens:,} tokens",
         "forward, backward: gradients"),
        ("one step", "Muon, AdamW, sharded", f"{at.parameters['total'] / 1e9:.2f} billion "
         "parameters"),
        ("a checkpoint", "and bits per byte", f"after {at.iterations:,} steps: "
         f"{reported.LEADERBOARD['run1'].val_bpb:.3f}"),
        ("CORE", "22 tasks, every item", f"{reported.RUN1_CORE:.4f}; GPT-2 has "
         f"{reported.GPT2_CORE:.4f}"),
        ("report.html", "curves, scores, samples",
         f"{reported.RUN1_SECONDS / 3600:.2f} hours, {reported.run1_dollars():.0f} dollars"),
    )  # fmt: skip
    drawn = []
    for row, (name, below, note) in enumerate(ways):
        y = 30 + 76 * row
        inside = PAINT[0] if 2 <= row <= 4 else "none"
        drawn += [box(118, y, 204, name, below, inside), words(230, y + 6, note, size=15)]
        if row:
            drawn.append(arrow((118, y - 51), (118, y - 25)))
    drawn += [
        path("M16 334H5V182", PAINT[0], 2.5),
        arrow((5, 182), (16, 182), colour=PAINT[0], width=2.5),
        words(230, 362, f"and again, {at.iterations:,} times", size=15),
    ]
    alt = (
        "The run from top to bottom: "
        + "; ".join(f"{name}, {below}, {note}" for name, below, note in ways)
        + f". Rows, ranks and step repeat {at.iterations:,} times."
    )
    return opening(drawn, 594, alt, caption)
