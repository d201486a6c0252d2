"""Pictures of the chapter on the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.depth import dial
from nanogpt2.lab.drawing import PAINT, arrow, box, drawing, show, words
from nanogpt2.lab.page import Html
from nanogpt2.lab.small_run import SmallRun
from nanogpt2.optim.schedules import learning_rate, muon_momentum, weight_decay
from nanogpt2.recipes import get_recipe
from nanogpt2.reported import LEADERBOARD
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.studies.loop.measures import valley

RECORDS = tuple(LEADERBOARD)
LONGEST = dial(recipe="run1").iterations
POINTS = 400
"""of each curve of a schedule"""


def step_picture(caption: str = "") -> Html:
    """One step of run 1 on eight GPUs, as a ring: rows in, a little motion out."""
    found, rows = dial(24, "run1"), get_recipe("run1").device_batch_size
    row = rows * found.model.sequence_len
    passes = found.batch_tokens // (8 * row)
    names = (
        f"{rows} rows of {found.model.sequence_len:,}",
        "model: a loss",
        "backward: gradients",
        "mean over the GPUs",
        "schedule: rates of this step",
        "optimizer: move everything",
        "forget the gradients",
    )
    places = [(name, 26 + 64 * i) for i, name in enumerate(names)]
    body = [box(150, y, 244, name) for name, y in places]
    body += [arrow((150, y + 20), (150, y + 44)) for _, y in places[:-1]]
    body += [
        arrow((272, 154), (292, 154), (292, 26), (274, 26)),
        words(302, 78, f"{passes} passes,", size=15),
        words(302, 98, "added up", size=15),
        words(302, 146, f"8 GPUs: {found.batch_tokens:,}", size=15),
        words(302, 166, "tokens a step", size=15),
        arrow((28, 410), (8, 410), (8, 26), (26, 26), colour=PAINT[0], width=3),
        words(302, 351, "AdamW and Muon", size=15),
        words(302, 415, f"{found.iterations:,} times", size=15),
    ]
    alt = (
        f"A ring of seven boxes. {rows} rows go through the model and back, {passes} times, and "
        "their gradients are added up; they are averaged over eight GPUs; the schedule sets the "
        "rates; the optimizer moves every parameter; the gradients are forgotten; and again, "
        f"{found.iterations:,} times."
    )
    return show(drawing(body, 436), alt, caption)


def schedule_frame(record: str) -> tuple[Figure, str]:
    """What a record changes from step to step, by the functions that the trainer calls."""
    recipe = get_recipe(record)
    found = dial(recipe=recipe)
    total, peak = found.iterations, recipe.muon.lr * found.lr_scale
    steps = sorted({round(i * (total - 1) / POINTS) for i in range(POINTS + 1)} | {*range(50)})
    rate = [peak * learning_rate(recipe, step, total) for step in steps]
    momentum = [muon_momentum(recipe, step, total) for step in steps]
    decay = [found.weight_decay * weight_decay(recipe, step, total) for step in steps]
    panels = (
        ("Muon's rate", rate, (0, 0.031)),
        ("its momentum", momentum, (0.84, 0.98)),
        ("its decay", decay, (0, 0.063)),
    )
    with plotting(height=4.6, rows=3) as (fig, below):
        for axes, (name, y, limits), colour in zip(below, panels, COLOURS, strict=False):
            axes.plot(steps, y, color=colour, linestyle="-")
            axes.set(ylabel=name, ylim=limits, xlim=(0, LONGEST))
        axes.set_xlabel("step")
    falls = total - round(recipe.warmdown_ratio * total)
    alt = (
        f"{record}, {total:,} steps: Muon's rate starts at {rate[0]:.4f}, is {peak:.4f} until step "
        f"{falls:,} and ends at {rate[-1]:.4f}; its momentum goes from {momentum[0]:.2f} over "
        f"{max(momentum):.2f} to {momentum[-1]:.2f}; its weight decay from {decay[0]:.4f} to "
        f"{decay[-1]:.4f}."
    )
    return fig, alt


def schedule_rows() -> list[list[Any]]:
    """Rows: each record's steps, rate, warm-up, constant and warm-down steps, last rate, decay."""
    rows = []
    for record in RECORDS:
        recipe = get_recipe(record)
        found = dial(recipe=recipe)
        total, down = found.iterations, round(recipe.warmdown_ratio * found.iterations)
        flat = total - down - recipe.warmup_steps
        rows.append(
            [record, total, f"{recipe.muon.lr * found.lr_scale:.4f}", recipe.warmup_steps, flat,
             down, f"{recipe.final_lr:.0%}", f"{found.weight_decay:.4f}"]
        )  # fmt: skip
    return rows


def valley_frame(rate: float, warm_down: float) -> tuple[Figure, str]:
    """Descent into a noisy valley with a warm-down, beside one at a constant rate."""
    flat, down = valley(rate, 0.0), valley(rate, warm_down)
    steps = range(1, len(flat) + 1)
    with plotting(height=2.9) as (fig, axes):
        axes.plot(steps, flat, color=COLOURS[5], linestyle="-", label="constant rate")
        axes.plot(steps, down, color=COLOURS[0], linestyle="-", label="with the warm-down")
        axes.set(xlabel="step", ylabel="loss", ylim=(0.03, 3), yscale="log")
        legend(fig)
    alt = (
        f"Rate {rate:g}: with a warm-down over {warm_down:.0%} of the steps the loss ends at "
        f"{down[-1]:.3f}, at a constant rate at {flat[-1]:.3f}."
    )
    return fig, alt


def moment_lines(found: dict[str, Any], caption: str = "") -> Html:
    """One number's gradients, AdamW's two averages of them, and the number; from ``followed``."""
    steps = range(1, len(found["gradient"]) + 1)
    with plotting(height=4.6, rows=3) as (fig, (first, second, third)):
        first.plot(steps, found["gradient"], color=COLOURS[5], linestyle="-", label="gradient")
        first.plot(steps, found["mean"], color=COLOURS[0], linestyle="-", label="mean m")
        first.plot(steps, found["root"], color=COLOURS[1], label="root of v")
        ratio = [m / r if r else 0.0 for m, r in zip(found["mean"], found["root"], strict=True)]
        second.plot(steps, ratio, color=COLOURS[2], linestyle="-")
        second.set(ylabel="m / root of v", ylim=(-1.2, 1.2))
        third.plot(steps, found["value"], color=COLOURS[3], linestyle="-")
        third.set(ylabel="the number", xlabel="step")
        legend(fig)
    alt = (
        f"Over {len(steps)} steps the gradients of one number jump between "
        f"{min(found['gradient']):.2g} and {max(found['gradient']):.2g}; their mean over the root "
        f"of their mean square lies between {min(ratio):.2g} and {max(ratio):.2g}; the number goes "
        f"from {found['value'][0]:.3g} to {found['value'][-1]:.3g}."
    )
    return show(fig, alt, caption)


def noise_lines(found: dict[str, dict[str, Any]], caption: str = "") -> Html:
    """Squared length of averaged gradients over the rows averaged, and what two numbers predict."""
    with plotting(height=3.2) as (fig, axes):
        for i, (name, one) in enumerate(found.items()):
            predicted = [one["signal"] + one["spread"] / rows for rows in one["rows"]]
            axes.plot(one["rows"], one["squares"], "o", color=COLOURS[i], label=name)
            axes.plot(one["rows"], predicted, color=COLOURS[i], linestyle="-")
            axes.axhline(max(one["signal"], 1e-9), color=COLOURS[i], linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="rows that are averaged",
                 ylabel="squared length of the gradient")  # fmt: skip
        _ticks(axes, one["rows"])
        legend(fig)
    told = "; ".join(
        f"{name}: from {one['squares'][0]:.2g} at one row to {one['squares'][-1]:.2g} at "
        f"{one['rows'][-1]}, the gradient itself {one['signal']:.2g}"
        for name, one in found.items()
    )
    return show(fig, f"Falling lines that flatten out. {told}.", caption)


def batch_lines(found: Mapping[str, Mapping[int, SmallRun]], caption: str = "") -> Html:
    """Bits per byte at the end over the rows of a batch, one budget of tokens; ``batch_runs``."""
    ys = {f"rates {arm}": [run.bpb for run in runs.values()] for arm, runs in found.items()}
    rows = list(next(iter(found.values())))
    with plotting() as (fig, axes):
        for name, y in ys.items():
            axes.plot(rows, y, label=name)
        axes.set(xscale="log", xlabel="rows of a batch", ylabel="bits per byte, held out")
        _ticks(axes, rows)
        legend(fig)
    told = (
        f"{name}: best at {rows[y.index(min(y))]} rows with {min(y):.3f}, {y[-1]:.3f} at {rows[-1]}"
        for name, y in ys.items()
    )
    return show(fig, "; ".join(told) + ".", caption)


def _ticks(axes: Any, rows: Sequence[int]) -> None:
    """Each number of rows by its name, and no others."""
    axes.set_xticks(rows, [str(number) for number in rows])
    axes.minorticks_off()
