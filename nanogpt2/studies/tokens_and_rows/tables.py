"""Tables of the chapter on tokens and rows: the data of each record, and what other texts gave."""

from __future__ import annotations

from nanogpt2 import reported
from nanogpt2.depth import dial
from nanogpt2.memory import shards_needed
from nanogpt2.recipes import get_recipe

SHARDS_OF = {
    "fineweb-edu": reported.FINEWEB_SHARDS_OF,
    "climbmix": reported.CLIMBMIX_SHARDS_OF,
}
NAMES = {"fineweb-edu": "FineWeb-Edu", "climbmix": "ClimbMix"}


def data_rows() -> list[list[str]]:
    """Rows: record, its text, tokens, tokens a scaling parameter, shards, epochs."""
    rows = []
    for name in reported.LEADERBOARD:
        recipe = get_recipe(name)
        at, there = dial(recipe=recipe), SHARDS_OF[recipe.data]
        shards = shards_needed(recipe.data, at.tokens)
        rows.append(
            [
                name,
                NAMES[recipe.data],
                f"{at.tokens:,}",
                f"{at.tokens / at.scaling_parameters:.2f}",
                f"{shards:,} of {there:,.0f}",
                f"{shards / there:.2f}",
            ]
        )
    return rows


def text_rows() -> list[list[str]]:
    """Rows: a text, the CORE of run 3's model trained on it, how much less that is."""
    told = {
        "FineWeb-Edu": reported.LEADERBOARD["run3"].core,
        "FinePDFs, DCLM and FineWeb-Edu mixed": reported.FINEPDFS_CORE,
        "FineWeb, unfiltered": reported.FINEWEB_CORE,
    }
    best = max(told.values())
    return [[name, f"{core:.4f}", f"{core - best:+.4f}"] for name, core in told.items()]
