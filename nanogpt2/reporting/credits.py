"""Whose text a model learned from, as the report says it."""

from __future__ import annotations

from pathlib import Path

CREDITS: dict[str, tuple[str, ...]] = {
    "fineweb-edu": (
        "FineWeb-Edu (Penedo et al., arXiv 2406.17557), ODC-By 1.0, shuffled sample "
        "karpathy/fineweb-edu-100b-shuffle.",
    ),
    "climbmix": (
        "ClimbMix (Diao et al., NVIDIA, arXiv 2504.13161), CC BY-NC 4.0, shuffled sample "
        "karpathy/climbmix-400b-shuffle.",
    ),
}


def credits(name: str, folder: Path | str | None = None) -> list[str]:
    """Credits of a recipe's data set by name; of one's own ``folder``, only where it is."""
    if folder is not None:
        return [f"The documents in {folder}."]
    if name == "embedded":
        from nanogpt2.data.corpus import embedded_credits

        return embedded_credits()
    return list(CREDITS[name])
