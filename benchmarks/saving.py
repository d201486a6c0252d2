"""A checkpoint: how long the steps wait for it, and how long it takes to be whole on the disk.

python -m benchmarks.saving [--depth D] [--folder DIR] [--json PATH]

The real ``Saver`` writes model and optimizer of the first record's recipe at a depth whose files
fit here. Seconds grow with the bytes, so that the last row says what a record's own depth takes on
such a disk, all of it written by one process: ranks write their shares side by side.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.table import Row, report
from nanogpt2.depth import dial, parameter_counts
from nanogpt2.errors import run_command
from nanogpt2.memory import optimizer_bytes
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.recipes import get_recipe
from nanogpt2.training.ranks import ALONE
from nanogpt2.training.saver import Saver

RECIPE = "run1"


def checkpoint_bytes(depth: int) -> int:
    """Of the whole checkpoint: fp32 parameters, and the optimizer's state."""
    recipe = get_recipe(RECIPE, depth=depth)
    model = dial(depth, recipe).model
    return 4 * parameter_counts(model)["total"] + optimizer_bytes(model, recipe, 1)


def measure(depth: int = 8, folder: Path | None = None) -> Iterator[Row]:
    """Two saves: the first finds its memory, the second is what a run sees."""
    recipe = get_recipe(RECIPE, depth=depth)
    model = GPT(dial(depth, recipe).model)
    optimizer = build_optimizer(model, recipe, dtype=torch.float32)
    size = checkpoint_bytes(depth) / 1e9
    with tempfile.TemporaryDirectory(dir=folder) as name:
        saver = Saver(Path(name), ALONE, keep_last=1)
        for which in ("first", "second"):
            began = time.perf_counter()
            saver.save(1, model, optimizer, {}, {})
            waited = time.perf_counter() - began
            saver.wait()
            whole = time.perf_counter() - began
            what = f"{size:.2f} GB, {which} save"
            yield Row("saving", f"{what}: the steps wait", waited, "s")
            yield Row("saving", f"{what}: whole and hashed on the disk", whole, "s")
    real = checkpoint_bytes(get_recipe(RECIPE).depth) / 1e9
    yield Row("saving", f"{real:.1f} GB at that rate", whole * real / size, "s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--depth", type=int, default=8, help="of the model that is saved (8)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")
    options = parser.parse_args()
    report(list(measure(options.depth, options.folder)), options.json, "a checkpoint")


if __name__ == "__main__":
    run_command(main)
