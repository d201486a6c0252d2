"""The three parameters of every chapter, checked in one place before anything is computed."""

from __future__ import annotations

from typing import Any

from nanogpt2.errors import UserError

SCALES = ("ci", "laptop", "h100")
"""lengths of a chapter's runs: two cores and minutes, an evening, one H100"""
DEEPEST = 100
SEEDS = 2**32


def check_parameters(depth: Any, scale: Any, seed: Any) -> None:
    """Raise UserError unless a chapter's ``DEPTH``, ``SCALE`` and ``SEED`` are what they may be."""
    if not _is_whole(depth) or not 1 <= depth <= DEEPEST:
        raise UserError(f"DEPTH is {depth!r}; give a whole number of layers from 1 to {DEEPEST}")
    if scale not in SCALES:
        raise UserError(f"SCALE is {scale!r}; choose one of {', '.join(map(repr, SCALES))}")
    if not _is_whole(seed) or not 0 <= seed < SEEDS:
        raise UserError(f"SEED is {seed!r}; give a whole number from 0 to {SEEDS - 1}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
