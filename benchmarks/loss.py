"""The softcapped loss, forward and backward: time and peak memory of its forms.

python -m benchmarks.loss [--tokens N] [--json PATH] [--record NAME]

Times are the best of rounds taken in turn. Memory is measured in a process of its own for each
form: how far the peak of a second pass rises above what was held before it (on Linux the kernel's
high-water mark, reset first; on NVIDIA GPUs the allocator's).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nanogpt2.errors import run_command
from nanogpt2.files import write_json
from nanogpt2.kernels.loss import softcapped_cross_entropy
from nanogpt2.lab.records import describe_device, record

FORMS = ("plain", "chunked", "plain compiled")
BASELINE = "plain"
WIDTH, VOCABULARY, SOFTCAP = 768, 32768, 15.0


def build(form: str, tokens: int, dtype: str, device: str) -> Callable[[], None]:
    """One forward and backward pass of the loss in this form, weight in fp32 as a master is."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, generator=generator).to(device, getattr(torch, dtype))
    weight = 0.05 * torch.randn(VOCABULARY, WIDTH, generator=generator).to(device)
    targets = torch.randint(VOCABULARY, (tokens,), generator=generator).to(device)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss: Any = softcapped_cross_entropy
    if form.endswith("compiled"):
        loss = torch.compile(softcapped_cross_entropy, dynamic=False, fullgraph=True)

    def run() -> None:
        hidden.grad = weight.grad = None
        loss(hidden, weight, targets, VOCABULARY, SOFTCAP, "mean", form.split()[0]).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _status(field: str) -> int:
    """A size that Linux states about this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_bytes(form: str, tokens: int, dtype: str, device: str) -> int:
    """Bytes by which one pass rises above what stands between passes; alters the process's peak."""
    run = build(form, tokens, dtype, device)
    run()  # compiles, and leaves the gradients behind: they are part of what stands
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark back to now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def measured_apart(form: str, tokens: int, dtype: str, device: str) -> int | None:
    """``peak_bytes`` in a fresh process; None where the system does not say."""
    if device != "cuda" and not Path("/proc/self/clear_refs").exists():
        return None
    question = ["--one", form, "--tokens", str(tokens), "--dtype", dtype, "--device", device]
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.loss", *question],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    return int(json.loads(answer.stdout))


def measure(
    tokens: int | None = None,
    dtypes: tuple[str, ...] | None = None,
    device: str | None = None,
    rounds: int = 2,
    forms: tuple[str, ...] = FORMS,
) -> list[dict[str, Any]]:
    """Rows of part, what, value, unit: seconds and peak memory, each with its ratio to plain."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokens = tokens or (32768 if device == "cuda" else 2048)
    rows = []
    for dtype in dtypes or (("bfloat16",) if device == "cuda" else ("float32", "bfloat16")):
        peaks = {form: measured_apart(form, tokens, dtype, device) for form in forms}
        runs = {form: build(form, tokens, dtype, device) for form in forms}
        best = dict.fromkeys(forms, float("inf"))
        for turn in range(rounds + 1):
            for form, run in runs.items():
                start = time.perf_counter()
                run()
                if turn:
                    best[form] = min(best[form], time.perf_counter() - start)
        for form in forms:
            common = {"part": "loss", "form": form, "dtype": dtype, "tokens": tokens}
            what = f"{form}, {tokens} tokens, {dtype}"
            share = best[form] / best[BASELINE]
            rows.append(
                {**common, "what": what, "value": best[form] * 1000, "unit": "ms", "ratio": share}
            )
            peak, plain = peaks[form], peaks[BASELINE]
            if peak is not None and plain:
                mib, share = peak / 2**20, peak / plain
                rows.append(
                    {**common, "what": f"{what}: peak", "value": mib, "unit": "MiB", "ratio": share}
                )
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line for each form."""
    title = f"softcapped loss, forward and backward, V {VOCABULARY}, C {WIDTH} (share of plain)"
    table = Table(title=title)
    for heading in ("dtype", "tokens", "form", "ms", "peak MiB"):
        table.add_column(heading, justify="right")
    lines: dict[tuple[str, int, str], dict[str, str]] = {}
    for row in rows:
        key = (row["dtype"], row["tokens"], row["form"])
        lines.setdefault(key, {})[row["unit"]] = f"{row['value']:,.0f} ({row['ratio']:.2f})"
    for (dtype, tokens, form), cells in lines.items():
        table.add_row(dtype, f"{tokens:,}", form, cells["ms"], cells.get("MiB", "-"))
    console.print(table)


def main() -> None:
    """Print the table; write JSON or a record where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss", description=__doc__)
    parser.add_argument("--tokens", type=int, help="tokens in a batch (2048; on a GPU 32768)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")
    parser.add_argument("--record", metavar="NAME", help="write book/results/NAME.json")
    parser.add_argument("--one", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="bfloat16", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(peak_bytes(given.one, given.tokens, given.dtype, given.device)))
        return
    start = time.perf_counter()
    rows = measure(given.tokens)
    show(rows, Console())
    if given.json:
        write_json(given.json, {"device": describe_device(), "rows": rows})
    if given.record:
        path = record(
            given.record,
            command="python -m benchmarks.loss",
            configuration={"vocab_size": VOCABULARY, "n_embd": WIDTH, "softcap": SOFTCAP},
            seed=0,
            tokens=0,
            seconds=time.perf_counter() - start,
            curve=[],
            results={"rows": rows},
        )
        print(f"recorded in {path}")


if __name__ == "__main__":
    run_command(main)
