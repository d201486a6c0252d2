"""Attention, forward and backward: every backend that runs here, as ratios to masked SDPA.

python -m benchmarks.windows [--quick] [--json PATH] [--record NAME]

All candidates of a case are timed in turn, round after round, and the best round of each counts, so
that a busy moment hits all alike. On an NVIDIA GPU the ranking at batch 16, 2048 tokens, 12 heads
of size 128 comes with it, cuDNN included. Chapter: windows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import write_json
from nanogpt2.kernels.attention import attention
from nanogpt2.kernels.backends import BACKENDS, choose_backend
from nanogpt2.kernels.portable import masked_attention
from nanogpt2.lab.records import describe_device, record

BASELINE = "sdpa"
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def cudnn_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """cuDNN's kernel through SDPA; full windows only, it knows no sliding ones."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return masked_attention(q, k, v, window)


def candidates(q: Tensor, k: Tensor, length: int, window: int) -> dict[str, Attend]:
    """Backends that can serve, by name; the others would stop with their reason."""
    (_, _, heads, size), kv_heads = q.shape, k.shape[2]
    shape = (size, heads, kv_heads, length, length, window)
    able: dict[str, Attend] = {}
    for name in (BASELINE, *(name for name in BACKENDS if name != BASELINE)):
        try:
            choose_backend(name, q.device.type, q.dtype, *shape)
        except UserError:
            continue
        able[name] = lambda q, k, v, w, name=name: attention(q, k, v, w, name)
    if q.is_cuda and window >= length - 1:
        able["cudnn"] = cudnn_attention
    return able


def round_seconds(attend: Attend, tensors: list[Tensor], window: int, repeats: int = 1) -> float:
    """Seconds of one forward and backward pass."""
    q, k, v, grad = tensors
    synchronize = torch.cuda.synchronize if q.is_cuda else (lambda: None)
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        torch.autograd.grad(attend(q, k, v, window), (q, k, v), grad)
    synchronize()
    return (time.perf_counter() - start) / repeats


def time_case(
    length: int,
    window: int,
    dtype: torch.dtype,
    device: str,
    batch: int,
    heads: int,
    head_dim: int,
    rounds: int,
) -> dict[str, float]:
    """Best seconds of each backend that runs the case."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, length, heads, head_dim)
    tensors = [
        torch.randn(shape, generator=generator).to(device, dtype).requires_grad_(i < 3)
        for i in range(4)
    ]
    able = candidates(tensors[0], tensors[1], length, window)
    repeats = 10 if device == "cuda" else 1
    best: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, attend in list(able.items()):
            try:
                seconds = round_seconds(attend, tensors, window, repeats)
            except RuntimeError as error:  # cuDNN may be missing; ours were probed
                print(f"{name} left out: {str(error).splitlines()[0]}")
                del able[name]
                continue
            if turn:
                best[name] = min(best.get(name, float("inf")), seconds)
    return best


def measure(
    lengths: tuple[int, ...] = (512, 1024, 2048, 4096),
    dtypes: tuple[torch.dtype, ...] | None = None,
    device: str | None = None,
    batch: int | None = None,
    heads: int | None = None,
    head_dim: int = 128,
    rounds: int = 4,
) -> list[dict[str, Any]]:
    """Rows of part, what, value (ms), unit; with backend, length, window, dtype and ratio."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device == "cuda"
    batch, heads = batch or (16 if on_gpu else 1), heads or (12 if on_gpu else 6)
    dtypes = dtypes or ((torch.bfloat16,) if on_gpu else (torch.float32, torch.bfloat16))
    rows = []
    for dtype in dtypes:
        kind = str(dtype).removeprefix("torch.")
        for length in lengths:
            for share, window in (("T", length), ("T/2", length // 2), ("T/4", length // 4)):
                shape = (batch, heads, head_dim)
                best = time_case(length, window, dtype, device, *shape, rounds)
                for name, seconds in best.items():
                    rows.append(
                        {
                            "part": "attention",
                            "what": f"{name}, T {length}, window {share}, {kind}",
                            "value": seconds * 1000,
                            "unit": "ms",
                            "backend": name,
                            "length": length,
                            "window": share,
                            "dtype": kind,
                            "shape": f"B {batch}, H {heads}, D {head_dim}",
                            "ratio": best[BASELINE] / seconds,
                        }
                    )
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line for each case, a column for each backend: milliseconds (times faster than sdpa)."""
    names = list(dict.fromkeys(row["backend"] for row in rows))
    title = f"attention, forward and backward, ms (ratio to masked SDPA); {rows[0]['shape']}"
    table = Table(title=title)
    for heading in ("dtype", "T", "window", *names):
        table.add_column(heading, justify="right")
    cases: dict[tuple[str, int, str], dict[str, str]] = {}
    for row in rows:
        cell = f"{row['value']:.1f} ({row['ratio']:.2f}x)"
        key = (row["dtype"], row["length"], row["window"])
        cases.setdefault(key, {})[row["backend"]] = cell
    for (dtype, length, share), cells in cases.items():
        table.add_row(dtype, str(length), share, *(cells.get(name, "-") for name in names))
    console.print(table)


@contextmanager
def stopwatch(spent: list[float]) -> Iterator[None]:
    """Appends the seconds that the block took."""
    start = time.perf_counter()
    yield
    spent.append(time.perf_counter() - start)


def main() -> None:
    """Print the table; write JSON or a record where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only T 2048")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")
    parser.add_argument("--record", metavar="NAME", help="write book/results/NAME.json")
    arguments = parser.parse_args()
    lengths = (2048,) if arguments.quick else (512, 1024, 2048, 4096)
    spent: list[float] = []
    with stopwatch(spent):
        rows = measure(lengths)
    show(rows, Console())
    if arguments.json:
        write_json(arguments.json, {"device": describe_device(), "rows": rows})
    if arguments.record:
        path = record(
            arguments.record,
            command="python -m benchmarks.windows" + " --quick" * arguments.quick,
            configuration={"lengths": list(lengths), "shape": rows[0]["shape"]},
            seed=0,
            tokens=0,
            seconds=spent[0],
            curve=[],
            results={"rows": rows},
        )
        print(f"recorded in {path}")


if __name__ == "__main__":
    run_command(main)
