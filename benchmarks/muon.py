"""Polar Express: the Gram form against the direct one, in time and in error against float64.

python -m benchmarks.muon [--json PATH]

Chapter: muon.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from benchmarks.table import Row, report
from nanogpt2.optim import polar_express as room

SHAPES = ((768, 768), (768, 3072), (3072, 768))


def matrix(rows: int, cols: int, decades: float | None) -> Tensor:
    """Gaussian, or with singular values from 1 down over ``decades``."""
    g = torch.randn(1, rows, cols, dtype=torch.float64)
    if decades is None:
        return g
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    return u * torch.logspace(0, -decades, s.size(-1), dtype=torch.float64) @ vh


def run(g: Tensor, gram: bool, dtype: torch.dtype) -> Tensor:
    """``polar_express`` in the one form or the other."""
    side, room.LARGE_SIDE = room.LARGE_SIDE, 1 if gram else 1 << 30
    try:
        return room.polar_express(g, dtype=dtype)
    finally:
        room.LARGE_SIDE = side


def measure(repeats: int = 7) -> list[Row]:
    """Errors of both forms in bf16, and the ratio of their times, taken in turn."""
    rows = []
    for shape in SHAPES:
        for decades in (None, 2.0, 4.0):
            g = matrix(*shape, decades)
            exact = run(g, False, torch.float64)
            kind = "Gaussian" if decades is None else f"{decades:.0f} decades"
            for gram in (False, True):
                x = run(g.float(), gram, torch.bfloat16).double()
                name = f"{shape[0]} x {shape[1]}, {kind}: error, {'Gram' if gram else 'direct'}"
                rows.append(Row("polar", name, ((x - exact).norm() / exact.norm()).item(), ""))
        times: dict[bool, list[float]] = {False: [], True: []}
        g = matrix(*shape, None).float()
        for _ in range(repeats + 1):
            for gram, seconds in times.items():
                start = time.perf_counter()
                run(g, gram, torch.bfloat16)
                seconds.append(time.perf_counter() - start)
        ratio = median(a / b for a, b in zip(times[False][1:], times[True][1:], strict=True))
        rows.append(Row("polar", f"{shape[0]} x {shape[1]}: direct / Gram", ratio, "x"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    report(measure(), parser.parse_args().json)
