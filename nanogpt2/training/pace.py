"""How long a step takes on this processor: a few real ones, before the run.

A processor's speed has no data sheet: it depends on what else runs, on its caches, and on whether
it multiplies bf16. So the plan measures it, for half a second or so. Chapter: where_the_time_goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from nanogpt2.config import GPTConfig
from nanogpt2.depth import Batch, dial, flops_per_token
from nanogpt2.machines import cores
from nanogpt2.recipes import Recipe

SECONDS = 0.25
"""at least, of forward and backward passes, and as much of the optimizer"""
PASS_FLOPS = 2e10
"""about as much a pass as measured: fewer rows than the run's, or fewer layers where one row is too
much"""
MOST_FLOPS = 2e11
"""a pass of more would take seconds: such a model is not measured"""
REPEATS = 8
"""at most"""
AROUND = 1.1
"""what loading, gradient norms and bookkeeping make of it; seen: 1.09 to 1.18 on two Xeon cores"""


def step_seconds(
    recipe: Recipe,
    precision: str,
    batch: Batch,
    ranks: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Seconds of a step of ``recipe`` on this processor, which so many ``ranks`` share.

    Forward and backward passes and the optimizer's update of the run's own model, or of fewer of
    its layers, scaled by the formula's FLOPs. None where even that would take seconds.
    """
    model = dial(None, recipe).model
    config = shallow(model)
    row_flops = flops_per_token(config) * config.sequence_len
    if row_flops > MOST_FLOPS:
        return None
    rows = max(1, min(batch.rows, int(PASS_FLOPS / row_flops)))
    import torch  # not before: whoever plans a run of a larger model need not have it

    threads = torch.get_num_threads()
    if ranks > 1:
        torch.set_num_threads(max(1, cores() // ranks))
    try:
        a_pass, update = _measure(recipe, precision, config, rows, batch.tokens // ranks, clock)
    finally:
        torch.set_num_threads(threads)
    scale = flops_per_token(model) / flops_per_token(config)
    scale *= max(1.0, ranks / cores())  # ranks without a core of their own take turns
    return AROUND * scale * (batch.passes * batch.rows / rows * a_pass + update)


def shallow(model: GPTConfig) -> GPTConfig:
    """As many of its layers as make a pass over one row about ``PASS_FLOPS``; at least two."""
    while model.n_layer > 2 and flops_per_token(model) * model.sequence_len > PASS_FLOPS:
        model = replace(model, n_layer=model.n_layer - 1)
    return model


def _measure(
    recipe: Recipe,
    precision: str,
    config: GPTConfig,
    rows: int,
    tokens: int,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Mean seconds of a pass over ``rows`` rows, and of an update; ``tokens`` are a step's."""
    import torch

    from nanogpt2.optim import apply_schedules, build_optimizer
    from nanogpt2.training.setup import PRODUCTS, build_model, thin_gradients

    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, device, precision, seed=0)
    thin_gradients(model, tokens)
    optimizer = build_optimizer(model, recipe, dtype=PRODUCTS[precision])
    optimizer.measure_gradient = True
    random = torch.Generator().manual_seed(0)
    shape = (rows, config.sequence_len + 1)
    ids = torch.randint(config.vocab_size, shape, generator=random)

    def learn() -> None:
        model(ids[:, :-1], ids[:, 1:]).backward()

    def update() -> None:
        apply_schedules(optimizer, recipe, 0, 1000)
        optimizer.step()

    learn()
    update()  # both once before they count: kernels are chosen, memory is found
    return _mean(learn, clock), _mean(update, clock)


def _mean(work: Callable[[], None], clock: Callable[[], float]) -> float:
    began, times = clock(), 0
    while times < 2 or (times < REPEATS and clock() - began < SECONDS):
        work()
        times += 1
    return (clock() - began) / times
