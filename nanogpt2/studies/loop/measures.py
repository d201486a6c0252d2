"""Measurements of the chapter on the loop: moments, movements, noise, spread over runs."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial, parameter_kind
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import SmallRun, small_config, small_recipe, small_run
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.schedules import apply_schedules, learning_rate
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.studies.loop.changes import RowsTurned, stuck_loader
from nanogpt2.training.fit import Point, fit

ROWS = 8
"""of a step of every other small run"""
BATCHES = (4, 8, 16, 32)


def tiny_config() -> GPTConfig:
    """Two layers, 64 wide: small enough to be trained many times on a page."""
    return small_config(2)


def followed(steps: int, seed: int = 0, word: str = " the") -> dict[str, Any]:
    """A run of the small model, watched from within.

    Returns lists over the steps: ``gradient``, ``mean`` and ``root`` (AdamW's two averages, with
    their start corrected), ``change`` and ``value`` of one number of the head (the row of ``word``,
    the channel whose start is largest), and ``norm`` of the whole gradient; and ``moved``: for
    each kind of parameter, rms of the change over rms of the parameters, at each step.
    """
    model, data, recipe = GPT(small_config()), small_data(), small_recipe()
    model.init_weights(seed)
    optimizer = build_optimizer(model, recipe)
    optimizer.measure_gradient = True
    head, row = model.lm_head.weight, data.tokenizer.encode(word)[0]
    at = (row, int(head[row].abs().argmax()))
    group = next(g for g in optimizer.param_groups if any(p is head for p in g["params"]))
    found: dict[str, Any] = defaultdict(list)
    moved: dict[str, list[float]] = defaultdict(list)
    before: dict[str, Tensor] = {}

    def look(optimizer: torch.optim.Optimizer, step: int, total: int) -> None:
        assert head.grad is not None
        found["gradient"].append(float(head.grad[at]))
        before.update({name: p.detach().clone() for name, p in model.named_parameters()})
        apply_schedules(optimizer, recipe, step, total)

    def after(point: Point) -> None:
        (beta1, beta2), state, step = group["betas"], optimizer.state[head], point["step"]
        found["mean"].append(float(state["exp_avg"][at]) / (1 - beta1**step))
        found["root"].append((float(state["exp_avg_sq"][at]) / (1 - beta2**step)) ** 0.5)
        found["change"].append(float(head[at].detach() - before["lm_head.weight"][at]))
        found["value"].append(float(head[at].detach()))
        found["norm"].append(float(optimizer.gradient_square().sqrt()))
        for kind, share in _moved(model, before).items():
            moved[kind].append(share)

    batches = (data.batch(step, ROWS, model.config.sequence_len, seed) for step in range(steps))
    fit(model, optimizer, batches, steps, look, callbacks=(after,))
    return {**found, "moved": dict(moved)}


def _moved(model: GPT, before: dict[str, Tensor]) -> dict[str, float]:
    """rms of the change since ``before`` over that of the parameters now, by kind."""
    changes: dict[str, list[Tensor]] = defaultdict(list)
    values: dict[str, list[Tensor]] = defaultdict(list)
    for name, p in model.named_parameters():
        kind = name if "lambdas" in name else parameter_kind(name, p.ndim)
        changes[kind].append(p.detach() - before[name])
        values[kind].append(p.detach())
    return {kind: _rms(changes[kind]) / _rms(values[kind]) for kind in values}


def _rms(tensors: Sequence[Tensor]) -> float:
    return float(torch.cat([t.flatten() for t in tensors]).square().mean().sqrt())


def moved_rows(moved: dict[str, list[float]], at: Sequence[int]) -> list[list[Any]]:
    """Rows: kind of parameter, and the share of itself that it moves in each of those steps."""
    return [[kind, *(sizes[step] for step in at)] for kind, sizes in moved.items()]


def rate_rows(depth: int, recipe: str | Recipe) -> list[list[Any]]:
    """Rows: who updates what, the rate as written, and as it is at that depth, by the optimizer."""
    recipe, found = get_recipe(recipe), dial(depth, recipe)
    small = GPT(small_config(2))
    groups = parameter_groups(
        list(small.named_parameters()), found.model, recipe, found.lr_scale, found.weight_decay
    )
    written = {
        "wte": recipe.wte.lr,
        "value_embeddings": recipe.value_embeddings.lr,
        "lm_head": recipe.lm_head.lr,
        "resid_lambdas": recipe.resid_lambdas.lr,
        "x0_lambdas": recipe.x0_lambdas.lr,
        "matrices": recipe.muon.lr,
    }
    rows: dict[str, list[Any]] = {}
    for group in groups:
        for name in group["names"]:
            kind = name if "lambdas" in name else parameter_kind(name, 2)
            rows[kind] = [kind, group["kind"], written[kind], group["initial_lr"]]
    return [rows[kind] for kind in written]


def noise(model: GPT, pieces: int = 64) -> dict[str, Any]:
    """How much of a small batch's gradient is noise (McCandlish et al., arXiv 1812.06162).

    ``pieces`` gradients of a row each, averaged in ever larger groups. Returns ``rows`` and
    ``squares`` (mean squared length of the averages), ``signal`` and ``spread`` (squared length of
    the true gradient, variance of one row's), and ``critical``, their ratio, in tokens.
    """
    data, length = small_data(model.config.vocab_size), model.config.sequence_len
    gradients = []
    for piece in range(pieces):
        loss = model(*data.batch(piece, 1, length, seed=0))
        parts = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
    averages, sizes, squares = torch.stack(gradients), [], []
    while len(averages) > 1:
        sizes.append(pieces // len(averages))
        squares.append(float(averages.square().sum(1).mean()))
        averages = (averages[::2] + averages[1::2]) / 2
    sizes.append(pieces)
    squares.append(float(averages.square().sum()))
    # E|g_b|^2 = signal + spread / b at the smallest and at the largest batch, solved for both
    spread = (squares[0] - squares[-1]) / (1 - 1 / pieces)
    signal = squares[-1] - spread / pieces
    critical = spread / signal * length if signal > 0 else float("inf")
    return {"rows": sizes, "squares": squares, "signal": signal, "spread": spread,
            "critical": critical}  # fmt: skip


def tiny_run(**settings: Any) -> SmallRun:
    """``small_run`` of the tiny model, looked at seldom and on few rows."""
    steps = settings["steps"]
    return small_run(tiny_config(), evaluate_every=max(1, steps // 8), val_rows=32, **settings)


def spread_runs(steps: int, seeds: Sequence[int]) -> dict[str, list[SmallRun]]:
    """Runs of the tiny model in which one thing differs: start, text, or sums."""
    first = seeds[0]
    fresh = [tiny_run(seed=seed, steps=0) for seed in seeds]
    return {
        "start values": [tiny_run(seed=first, steps=steps, start=start) for start in fresh],
        "order of the data": [tiny_run(seed=s, steps=steps, start=fresh[0]) for s in seeds],
        "order of the sums": [
            tiny_run(seed=first, steps=steps, within=RowsTurned(by)) for by in range(len(seeds))
        ],
    }


def spread_rows(runs: dict[str, list[SmallRun]]) -> list[list[Any]]:
    """Rows: what differs, runs, mean and standard deviation of the end's bits per byte."""
    ends = {name: [run.bpb for run in group] for name, group in runs.items()}
    return [
        [name, len(bpb), statistics.fmean(bpb), statistics.stdev(bpb)] for name, bpb in ends.items()
    ]


def patients(steps: int, seed: int = 0) -> dict[str, SmallRun]:
    """Four runs of the tiny model by letter: one is healthy."""
    settings: dict[str, Any] = {"seed": seed, "steps": steps}
    return {
        "A": tiny_run(lr_scale=16.0, **settings),
        "B": tiny_run(within=stuck_loader, **settings),
        "C": tiny_run(**settings),
        "D": tiny_run(lr_scale=1 / 16, **settings),
    }


def valley(rate: float, warm_down: float, steps: int = 300) -> list[float]:
    """Loss over the steps of noisy gradient descent in a valley whose floor falls slowly.

    Across the valley the loss is a parabola, along it an exponential; the gradient across has
    noise of deviation 1. Mean over 256 descents that start at the wall.
    """
    recipe = replace(get_recipe("run1"), warmdown_ratio=warm_down)
    generator = torch.Generator().manual_seed(0)
    across, along, losses = torch.full((256,), 1.5), 0.0, []
    for step in range(steps):
        losses.append(math.exp(-along / 60) + 0.5 * float(across.square().mean()))
        now = rate * learning_rate(recipe, step, steps)
        across = across - now * (across + torch.randn(256, generator=generator))
        along += now
    return losses


def batch_runs(steps: int, seed: int = 0) -> dict[str, dict[int, SmallRun]]:
    """One budget of tokens, ``steps`` steps of 8 rows, in batches of several sizes.

    By how rates follow the batch (by its root, or not at all), then by rows of a batch.
    """
    return {
        arm: {
            rows: tiny_run(
                steps=max(1, steps * ROWS // rows), batch_size=rows, seed=seed,
                lr_scale=(rows / ROWS) ** power,
            )
            for rows in BATCHES
        }
        for arm, power in {"by the root": 0.5, "as they are": 0.0}.items()
    }  # fmt: skip
