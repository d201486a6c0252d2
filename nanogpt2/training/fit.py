"""The training loop, bare: gradients, rates, one update, and whoever wants to look.

No disk, no ranks, no clock: ``trainer`` puts those around it, and so do the small runs of the
chapters. Chapter: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.errors import UserError
from nanogpt2.optim import apply_schedules
from nanogpt2.recipes import Recipe, get_recipe

Point = dict[str, Any]
"""what is known after a step: step (1 after the first), steps, loss (nats per token, the mean of
the step's batches, before its update), and what the callbacks added"""
Callback = Callable[[Point], Mapping[str, Any] | None]
"""called after a step with its point; what it returns joins the point"""
Schedule = Callable[[torch.optim.Optimizer, int, int], None]
"""sets what changes from step to step; called as schedule(optimizer, step, steps), step from 0,
when the step's gradients are there"""


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Sequence[Any]],
    steps: int,
    schedule: Recipe | str | Schedule | None,
    *,
    passes: int = 1,
    first_step: int = 0,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
    read: Callable[[Tensor], float] = Tensor.item,
) -> list[Point]:
    """Train ``model`` up to ``steps`` steps; returns the curve, a point a step.

    Args:
        model: called as model(inputs, targets), gives the mean loss.
        batches: each begins with inputs (B, T) and targets (B, T); one is read a pass.
        steps: the end of the run, and of its schedules.
        schedule: of rates, momentum and decay: a recipe's, or a callable; None leaves them be.
        passes: forward and backward passes a step (gradient accumulation).
        first_step: steps done before, by an earlier part of the run.
        callbacks: called in this order after every step; ``every`` makes one that is due now and
            then (to evaluate, to save). An exception of one ends the run.
        stop: asked after the callbacks; True ends the run here.
        read: makes a number of the step's loss, for which a GPU is waited for (over several ranks:
            their mean).

    Raises UserError where the batches end before the steps do, a step would have no pass, or a
    recipe is to schedule an optimizer that ``build_optimizer`` did not make.
    """
    if passes < 1:
        raise UserError(f"passes is {passes}; a step has at least 1")
    set_rates = schedule if callable(schedule) else _of_recipe(schedule, optimizer)
    stream, curve = iter(batches), []
    model.train()
    for step in range(first_step, steps):
        loss = _gradients(model, stream, passes)
        if loss is None:
            raise UserError(
                f"the batches ended after {step} of {steps} steps; give more text, ask for fewer "
                "steps, or read the text again (text_batches(..., again=True))"
            )
        set_rates(optimizer, step, steps)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        point: Point = {"step": step + 1, "steps": steps, "loss": read(loss)}
        for callback in callbacks:
            point |= callback(point) or {}
        curve.append(point)
        if stop():
            break
    return curve


def every(number: int, callback: Callback) -> Callback:
    """``callback`` after every ``number`` steps and after the last; 0: the last; -1: never."""
    return lambda point: callback(point) if due(point["step"], point["steps"], number) else None


def due(step: int, steps: int, number: int) -> bool:
    """Whether something that happens every ``number`` steps happens after ``step`` of ``steps``."""
    return (step == steps and number >= 0) or (number > 0 and step % number == 0)


def _gradients(model: nn.Module, stream: Iterator[Sequence[Any]], passes: int) -> Tensor | None:
    """Add up the gradients of the next ``passes`` batches; their mean loss, None where none is."""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for _ in range(passes):
        if (batch := next(stream, None)) is None:
            model.zero_grad(set_to_none=True)
            return None
        loss = model(batch[0].to(device), batch[1].to(device)) / passes
        loss.backward()
        total += loss.detach()
    return total


def _of_recipe(recipe: Recipe | str | None, optimizer: torch.optim.Optimizer) -> Schedule:
    if recipe is None:
        return lambda optimizer, step, steps: None
    chosen = get_recipe(recipe)
    if not all({"kind", "initial_lr"} <= set(group) for group in optimizer.param_groups):
        raise UserError(
            "a recipe schedules the optimizer that build_optimizer makes, and this is another; "
            "give a schedule of your own, or None"
        )
    return lambda optimizer, step, steps: apply_schedules(optimizer, chosen, step, steps)
