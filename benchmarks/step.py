"""One training step in its parts, and its peak memory.

python -m benchmarks.step [--depth 12] [--tokens 512] [--rows 1] [--recipe run1] [--compile]
    [--attention NAME] [--set NAME=VALUE] [--json PATH]

On a processor the default is one row of 512 tokens through run 1's model at depth 12, on CUDA 32
rows of 2,048, compiled. Precision is the recipe's where the machine is good at it, as in a run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks.table import Row, report
from nanogpt2.depth import dial, model_at
from nanogpt2.errors import run_command
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.optim.sharded import Matrices
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.run import add_set, assignments
from nanogpt2.training.metrics import peak_flops, peak_resident
from nanogpt2.training.setup import (
    PRODUCTS,
    build_model,
    choose_precision,
    switch_on_fp8,
    thin_gradients,
)


def build(recipe: Recipe, depth: int, tokens: int, device: torch.device) -> tuple[GPT, str]:
    """The recipe's model at ``depth`` for rows of ``tokens``, and the precision it runs in."""
    config = replace(model_at(depth, recipe), sequence_len=tokens)
    precision, _ = choose_precision(recipe.precision, device, False)
    model = build_model(config, device, precision, seed=0)
    if precision == "fp8":
        switch_on_fp8(model, recipe)
    return model, precision


def clock(device: torch.device, action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that ``action`` took, and what it returned."""
    start = time.perf_counter()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def timed_stacks(optimizer: Any) -> tuple[float, float]:
    """(Muon, AdamW) seconds of the last step, from the optimizer's own timeline."""
    muon = {stack.names[0] for stack in optimizer.stacks if isinstance(stack, Matrices)}
    spans = [(e.name in muon, e.stop - e.start) for e in optimizer.comm.events or []]
    return sum(s for m, s in spans if m), sum(s for m, s in spans if not m)


def measure(
    depth: int = 12,
    tokens: int | None = None,
    rows: int | None = None,
    recipe_name: str = "run1",
    compiled: bool | None = None,
    repeats: int = 5,
    attention: str = "auto",
    changes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Median seconds of forward, backward and optimizer over ``repeats`` steps after two.

    ``attention`` is a backend; ``changes`` are of the recipe, as by ``--set``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    tokens, rows = tokens or (2048 if cuda else 512), rows or (32 if cuda else 1)
    compiled = cuda if compiled is None else compiled
    recipe = get_recipe(recipe_name, **(changes or {}))
    plan = dial(depth, recipe)
    model, precision = build(recipe, depth, tokens, device)
    model.attention_backend = attention
    optimizer = build_optimizer(
        model,
        recipe,
        lr_scale=plan.lr_scale,
        weight_decay=plan.weight_decay,
        compiled=compiled,
        dtype=PRODUCTS[precision],
    )
    if not compiled:
        thin_gradients(model, rows * tokens)
    forward = torch.compile(model, dynamic=False) if compiled else model
    idx = torch.randint(0, recipe.model.vocab_size, (rows, tokens + 1), device=device)
    times: list[tuple[float, ...]] = []
    for step in range(repeats + 2):
        apply_schedules(optimizer, recipe, step, plan.iterations)
        optimizer.comm.events = None if cuda else []  # on CUDA the host's clock says nothing
        f, loss = clock(device, lambda: forward(idx[:, :-1], idx[:, 1:]))
        b, _ = clock(device, loss.backward)
        o, _ = clock(device, optimizer.step)
        z, _ = clock(device, lambda: model.zero_grad(set_to_none=True))
        times.append((f, b, o, *timed_stacks(optimizer), f + b + o + z))
    middle = [median(column) for column in zip(*times[2:], strict=True)]
    others = [f"attention {attention}"] if attention != "auto" else []
    others += [f"{field}={value}" for field, value in (changes or {}).items()]
    name = ", ".join((f"{recipe_name} d{depth}, {rows} x {tokens} tokens, {precision}", *others))
    labels = ["forward", "backward", "optimizer", "of it Muon", "of it AdamW", "step"]
    wanted = [i for i in range(6) if not (cuda and i in (3, 4))]
    out = [Row("step", f"{name}: {labels[i]}", middle[i], "s") for i in wanted]
    rate = rows * tokens / middle[-1]
    out.append(Row("step", f"{name}: rate", rate, "tokens/s"))
    peak = peak_flops(device, precision)
    if peak:
        out.append(Row("step", f"{name}: MFU", model.flops_per_token() * rate / peak, ""))
    used = torch.cuda.max_memory_allocated() if cuda else peak_resident()
    out.append(Row("step", f"{name}: peak memory", used / 1e9, "GB"))
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--recipe", default="run1")
    parser.add_argument("--compile", action="store_true", default=None)
    parser.add_argument("--attention", default="auto", help="a backend (default: auto)")
    parser.add_argument("--json")
    add_set(parser)
    o = parser.parse_args()
    settings = {
        "attention": o.attention,
        "changes": assignments(argparse.Namespace(assignments=o.assignments)),
    }
    report(measure(o.depth, o.tokens, o.rows, o.recipe, o.compile, **settings), o.json)


if __name__ == "__main__":
    run_command(main)
