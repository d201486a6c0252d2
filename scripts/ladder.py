"""The ladder as a picture: from a plain GPT-2 to the 29 January 2026 model, one switch a rung."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from scripts.rooms import Chapter


@dataclass(frozen=True)
class Rung:
    """One technique: its switch, what it replaces, the chapter that explains it."""

    switch: str
    """a field of GPTConfig, or of Recipe for the optimizer"""
    name: str
    before: str
    chapter: str


RUNGS = (
    Rung("positions", "rotary positions", "learned positions", "rotary_positions"),
    Rung("norm", "RMSNorm, no parameters", "LayerNorm", "norms"),
    Rung("bias", "no biases", "a bias in every layer", "norms"),
    Rung("activation", "squared ReLU", "GELU", "norms"),
    Rung("tied_head", "untied head", "head tied to the embedding", "norms"),
    Rung("embedding_norm", "norm after the embedding", "embeddings as they are", "norms"),
    Rung("qk_norm", "QK-norm", "queries and keys of any length", "norms"),
    Rung("logit_softcap", "softcapped logits", "raw logits", "norms"),
    Rung(
        "value_embeddings", "value embeddings", "values from the stream alone", "value_embeddings"
    ),
    Rung("residual_scalars", "residual scalars", "plain residual sums", "value_embeddings"),
    Rung("window_pattern", "sliding windows", "full attention", "windows"),
    Rung("matrices", "Muon for the matrices", "AdamW for everything", "muon"),
)
WIDTH, STEP, TOP = 400, 44, 54


def ladder_svg(rooms: list[Chapter], prefix: str = "../") -> str:
    """The ladder as inline SVG; a rung links to its chapter once that is written.

    Args:
        rooms: the chapters.
        prefix: from the page that shows the picture to the root of the built book.
    """
    documents = {chapter.key: chapter.document for chapter in rooms}
    height = TOP + STEP * len(RUNGS) + 60
    parts = [_ends(height)]
    for index, rung in enumerate(RUNGS):
        y = height - 66 - STEP * (index + 1)
        drawn = _rung(rung, index + 1, y)
        document = documents.get(rung.chapter)
        if document:
            drawn = f'<a href="{prefix}{document}.html">{drawn}</a>'
        parts.append(drawn)
    names = ", ".join(rung.name for rung in RUNGS)
    label = (
        f"A ladder of {len(RUNGS)} rungs. At its foot a plain GPT-2 of 2019; at its top the model "
        f"of 29 January 2026. The rungs from the bottom up: {names}."
    )
    return (
        f'<figure class="ng-ladder"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg></figure>'
    )


def _ends(height: int) -> str:
    """Rails, ground and goal."""
    left, right = 28, WIDTH - 28
    return (
        f'<path class="rail" d="M{left} {TOP - 8}V{height - 46}M{right} {TOP - 8}V{height - 46}"/>'
        f'<rect class="goal" x="8" y="4" width="{WIDTH - 16}" height="36" rx="6"/>'
        f'<text class="end" x="{WIDTH / 2}" y="27">the model of 29 January 2026</text>'
        f'<rect class="ground" x="8" y="{height - 46}" width="{WIDTH - 16}" height="36" rx="6"/>'
        f'<text class="end" x="{WIDTH / 2}" y="{height - 23}">a plain GPT-2, 2019</text>'
    )


def _rung(rung: Rung, number: int, y: int) -> str:
    kind = "optim" if rung.switch == "matrices" else "model"
    return (
        f'<g class="rung {kind}"><rect x="18" y="{y}" width="{WIDTH - 36}" height="38" rx="4"/>'
        f'<text class="number" x="34" y="{y + 24}">{number}</text>'
        f'<text class="name" x="62" y="{y + 17}">{escape(rung.name)}</text>'
        f'<text class="before" x="62" y="{y + 32}">{escape(f"was: {rung.before}")}</text></g>'
    )
