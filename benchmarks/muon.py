"""What the optimizer's fast forms buy on a processor, and what they cost in rounding.

python -m benchmarks.muon [--json PATH]

Times are taken in turn, in the precision that Muon's products have on this machine; errors in bf16
against float64, on matrices a quarter as wide. Chapter: muon.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.table import Row, report
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.optim.adamw import adamw_scalars, adamw_update
from nanogpt2.optim.fast.adamw import adamw_in_pieces
from nanogpt2.optim.fast.polar_express import polar_express_by_halves
from nanogpt2.optim.polar_express import polar_express

SHAPES = ((768, 768), (768, 3072), (3072, 768))
"""matrices of depth 12"""
TABLE = (32768, 768)


def matrix(rows: int, cols: int, decades: float | None) -> Tensor:
    """Gaussian, or with singular values from 1 down over ``decades``."""
    g = torch.randn(1, rows, cols, dtype=torch.float64)
    if decades is None:
        return g
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    return u * torch.logspace(0, -decades, s.size(-1), dtype=torch.float64) @ vh


def ratio(plain: Callable[[], object], fast: Callable[[], object], repeats: int) -> float:
    """Median of how many times as long ``plain`` takes, the two in turn, after one round."""
    ratios = []
    for _ in range(repeats + 1):
        moments = [time.perf_counter()]
        for action in (plain, fast):
            action()
            moments.append(time.perf_counter())
        ratios.append((moments[1] - moments[0]) / (moments[2] - moments[1]))
    return median(ratios[1:])


def errors() -> list[Row]:
    """Frobenius distance in bf16 from float64, relative, of both forms."""
    rows = []
    for height, width in ((192, 192), (192, 768), (768, 192)):
        for decades in (None, 2.0, 4.0):
            g = matrix(height, width, decades)
            exact = polar_express(g, dtype=torch.float64)
            kind = "Gaussian" if decades is None else f"{decades:.0f} decades"
            for name, form in (("definition", polar_express), ("fast", polar_express_by_halves)):
                error = (form(g.float()).double() - exact).norm() / exact.norm()
                what = f"Polar Express {height} x {width}, {kind}: error, {name}"
                rows.append(Row("optim", what, error.item(), ""))
    return rows


def measure(repeats: int = 7) -> list[Row]:
    """Ratios of times at depth 12, and errors."""
    dtype = torch.bfloat16 if good_at_bf16("cpu") else torch.float32
    rows = []
    for height, width in SHAPES:
        g = torch.randn(1, height, width)
        times = ratio(
            lambda g=g: polar_express(g, dtype=dtype),
            lambda g=g: polar_express_by_halves(g, dtype=dtype),
            repeats,
        )
        what = f"Polar Express {height} x {width}, {str(dtype)[6:]}: definition / fast"
        rows.append(Row("optim", what, times, "x"))
    tensors = [torch.rand(TABLE) for _ in range(4)]
    group = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.0}
    given = (*tensors, *adamw_scalars(group, 1), 1e-10)
    times = ratio(lambda: adamw_update(*given), lambda: adamw_in_pieces(*given), repeats)
    rows.append(
        Row("optim", f"AdamW, a table of {TABLE[0]} x {TABLE[1]}: whole / in pieces", times, "x")
    )
    return [*rows, *errors()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    report(measure(), parser.parse_args().json)
