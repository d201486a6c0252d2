"""CORE by the evaluator against the plain loop over the same examples; all outcomes must be equal.

    python -m benchmarks.core --bundle DIR [--max-per-task 25] [--depth 4]

The plain loop takes one example at a time, encodes each prompt whole and makes logits at every
position, as the known evaluator does. Task by task both run one after the other, reading of files
included, so that a busy machine slows both alike. Chapter: core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.table import Row, report
from nanogpt2.config import GPTConfig
from nanogpt2.data.bundle import find_bundle
from nanogpt2.data.corpus import works
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import run_command
from nanogpt2.evals.core import evaluate_core
from nanogpt2.evals.core.bundle import load_tasks
from nanogpt2.evals.core.plain import plain_core
from nanogpt2.model.gpt import GPT


def build(depth: int, device: str) -> tuple[GPT, Tokenizer]:
    """A model of run 1's kind with every matrix drawn anew, and a tokenizer of 32,768 tokens.

    A model at its start has zero output projections: its losses would be all but equal.
    """
    documents, _ = works()
    tokenizer = Tokenizer.train((text for work in documents for text in work), 32768)
    config = GPTConfig(
        n_layer=depth, n_head=max(1, depth // 2), n_kv_head=max(1, depth // 2), n_embd=64 * depth
    )
    model = GPT(config).to(device).eval()
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.05, generator=generator)
    return model, tokenizer


def measure(
    bundle: Path,
    depth: int = 4,
    max_per_task: int | None = 25,
    tasks: Sequence[str] | None = None,
    device: str | None = None,
) -> list[Row]:
    """Seconds of both, their quotient, and how many outcomes differ (of how many)."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = build(depth, device)
    labels = [task.label for task in load_tasks(bundle, tasks)]
    evaluate_core(model, tokenizer, bundle, 1, tasks=["copa"])  # warms up
    fast = plain = 0.0
    examples = different = 0
    rows = []
    for label in labels:
        start = time.perf_counter()
        result = evaluate_core(model, tokenizer, bundle, max_per_task, tasks=[label])
        middle = time.perf_counter()
        plainly = plain_core(model, tokenizer, bundle, max_per_task, tasks=[label])
        end = time.perf_counter()
        found, wanted = (core.tasks[label].correct for core in (result, plainly))
        different += sum(a != b for a, b in zip(found, wanted, strict=True))
        examples += len(found)
        fast, plain = fast + middle - start, plain + end - middle
        rows.append(Row("core", f"{label}: plain / ours", (end - middle) / (middle - start), "x"))
        print(f"{label:<34}{middle - start:8.2f} s{end - middle:9.2f} s", flush=True)
    start = time.perf_counter()
    evaluate_core(model, tokenizer, bundle, max_per_task, tasks=tasks)
    together = time.perf_counter() - start
    what = f"d{depth}, {examples} examples"
    return [
        *rows,
        Row("core", f"plain loop ({what})", plain, "s"),
        Row("core", f"ours, task by task ({what})", fast, "s"),
        Row("core", f"ours, all tasks at once ({what})", together, "s"),
        Row("core", "plain / ours, task by task", plain / fast, "x"),
        Row("core", "outcomes that differ", different, f"of {examples}"),
    ]


def main() -> int:
    """Print the rows; exit 1 where an outcome differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="the tasks; fetched if not given")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--max-per-task", type=int, default=25)
    parser.add_argument("--tasks", nargs="+", help="labels")
    parser.add_argument("--json", help="write the rows to this file")
    options = parser.parse_args()
    bundle = find_bundle(options.bundle)
    rows = measure(bundle, options.depth, options.max_per_task, options.tasks)
    report(rows, options.json, "CORE")
    return int(rows[-1].value > 0)


if __name__ == "__main__":
    run_command(main)
