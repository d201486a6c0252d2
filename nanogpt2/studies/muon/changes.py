"""Changed optimizers of the chapter on Muon: other rates and parts, and failures on purpose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.small_run import small_recipe
from nanogpt2.optim.muon import neuron_axis, shape_factor
from nanogpt2.optim.polar_express import COEFFICIENTS, polar_express
from nanogpt2.recipes import Recipe
from nanogpt2.studies.muon.pictures import SAFETY


def recipe_with(kind: str, rate: float | None = None, **muon: Any) -> Recipe:
    """The book's small recipe with the matrices under "muon" or "adamw" at ``rate``."""
    recipe = small_recipe(matrices=kind)
    if kind == "adamw":
        group = recipe.matrices_adamw
        return replace(recipe, matrices_adamw=replace(group, lr=rate or group.lr))
    return replace(recipe, muon=replace(recipe.muon, lr=rate or recipe.muon.lr, **muon))


def unsafe_coefficients() -> list[tuple[float, float, float]]:
    """The package's polynomials with their own safety factor taken out again."""
    factors = [SAFETY] * 4 + [1.0]
    return [(a * f, b * f**3, c * f**5) for (a, b, c), f in zip(COEFFICIENTS, factors, strict=True)]


def unguarded() -> Patch:
    """Failure: the polynomials end exactly at 1, with no room for rounding."""
    return patched("nanogpt2.optim.polar_express.COEFFICIENTS", tuple(unsafe_coefficients()))


@contextmanager
def shapes_swapped() -> Iterator[None]:
    """Failure: weights are taken for (in, out), so that rows and columns change places."""
    with (
        patched("nanogpt2.optim.muon.shape_factor", lambda rows, cols: shape_factor(cols, rows)),
        patched("nanogpt2.optim.muon.neuron_axis", lambda rows, cols: neuron_axis(cols, rows)),
    ):
        yield


def longest_row(inner: bool, outer: float, dtype: torch.dtype, rows: int = 200) -> str:
    """Median and largest length of orthogonalized random single rows of 32, as "median / worst".

    ``inner``: keep the safety factor in the coefficients; ``outer``: the divisor of the norm.
    """
    g = torch.randn(rows, 1, 32, generator=torch.Generator().manual_seed(0))
    with nullcontext() if inner else unguarded():
        x = polar_express(g, divisor=outer, dtype=dtype)
    length = torch.linalg.vector_norm(x.float(), dim=(1, 2)).nan_to_num(math.inf, math.inf)
    return f"{float(length.median()):.3g} / {float(length.max()):.3g}"
