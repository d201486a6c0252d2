"""Pictures of the chapter that tells the story: four bills, their factors, what CORE asks."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure

from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.core.statistics import centered, core_of
from nanogpt2.lab.drawing import PAINT, arrow, box, drawing, opening, rect, show, words
from nanogpt2.lab.page import Html
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.studies.story.bills import ENDS, bills, factors, implied

KINDS = {"hardware": COLOURS[0], "software": COLOURS[1], "text and method": COLOURS[2]}
STAGES = ("documents", "tokens", "rows", "model", "score")


def squares(caption: str = "") -> Html:
    """The four bills as squares whose areas are the money."""
    found = bills()
    scale = 270 / found[0].dollars ** 0.5
    drawn, told, x = [], [], 8.0
    for i, bill in enumerate(found):
        side = scale * bill.dollars**0.5
        drawn.append(rect(x, 290 - side, side, side, PAINT[i]))
        told.append(f"{bill.when}: {bill.dollars:,.0f} dollars")
        at = x + side / 2 if i == 0 else x
        *month, year = bill.when.split()
        when = f"{month[0][:3]} {year[2:]}" if month else year
        drawn.append(words(at, 314, when, "middle" if i == 0 else "start"))
        drawn.append(words(at, 334, f"${bill.dollars:,.0f}", "middle" if i == 0 else "start"))
        x += max(side, 54) + 8
    alt = f"Four squares with areas as the dollars that one score cost. {'; '.join(told)}."
    return opening(drawn, 344, alt, caption)


def fall_frame(of_the_peak_in_2019: float, one_TPU_v3_was: str, until: str) -> tuple[Figure, str]:
    """The way from the first bill to the last, a bar a factor; a frame for ``explore``."""
    found = bills(of_the_peak_in_2019, one_TPU_v3_was)[: 3 + ENDS.index(until)]
    steps = factors(found)
    dollars = list(
        accumulate(steps, lambda have, step: have / step.times, initial=found[0].dollars)
    )
    tokens, passes = implied(of_the_peak_in_2019, one_TPU_v3_was)
    with plotting(6.2, 0.9 + 0.34 * (len(steps) + 2)) as (fig, axes):
        names = [f"2019: ${dollars[0]:,.0f}"]
        for i, step in enumerate(steps):
            low, high = sorted(dollars[i : i + 2])
            axes.barh(i + 1, high - low, left=low, color=KINDS[step.what], height=0.62)
            sign = "÷" if step.times >= 1 else "×"
            size = max(step.times, 1 / step.times)
            axes.text(low * 0.9, i + 1, f"{sign} {size:.3g}", ha="right", va="center", size=10)
            names.append(step.name)
        names.append(f"{until}: ${dollars[-1]:,.0f}")
        for place, value in ((0, dollars[0]), (len(steps) + 1, dollars[-1])):
            axes.plot([value], [place], "o", color=COLOURS[5])
        for kind, colour in KINDS.items():
            axes.plot([], [], "s", color=colour, linestyle="none", label=kind)
        axes.set(xscale="log", xlim=(8, 90_000), xlabel="dollars")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_title(
            f"what 2019 pays for: {tokens / 1e9:,.0f} billion tokens, {passes:.0f} x WebText",
            loc="right",
        )
        legend(fig)
    listed = "; ".join(f"{step.name}, {step.times:.3g} times" for step in steps)
    return fig, (
        f"From {dollars[0]:,.0f} to {dollars[-1]:,.0f} dollars, if GPT-2's machine gave "
        f"{of_the_peak_in_2019:g} of its peak and a TPU v3 was a {one_TPU_v3_was}: {listed}."
    )


def task_picture(bundle: Path, caption: str = "") -> Html:
    """Where GPT-2 stands in each of the 22 tasks: chance, its accuracy, all right."""
    scores = published_scores(bundle)["1.5B"]
    tasks = {task.label: task for task in load_tasks(bundle)}
    points = {name: centered(scores[name], task.baseline) for name, task in tasks.items()}
    core = core_of(scores, {name: task.baseline for name, task in tasks.items()})
    order = sorted(points, key=points.__getitem__)
    with plotting(6.2, 5.4) as (fig, axes):
        for place, name in enumerate(order):
            chance, accuracy = tasks[name].baseline, scores[name]
            axes.plot([chance, accuracy], [place, place], "-", color=COLOURS[0], linewidth=2.5)
            axes.plot([chance], [place], "|", color=COLOURS[1], markersize=10, markeredgewidth=2)
            axes.plot([accuracy], [place], "o", color=COLOURS[0], markersize=5)
        axes.plot(
            [], [], "|", color=COLOURS[1], markeredgewidth=2, linestyle="none", label="chance"
        )
        axes.plot([], [], "o", color=COLOURS[0], linestyle="none", label="GPT-2")
        axes.set(xlim=(-0.02, 1), xlabel="accuracy")
        axes.set_yticks(range(len(order)), [f"{name}  {points[name]:+.2f}" for name in order])
        axes.tick_params(axis="y", labelsize=9)
        legend(fig, 2)
    best, worst = order[-1], order[0]
    alt = (
        f"22 tasks, each with its chance and GPT-2's accuracy. Furthest above chance is {best}, "
        f"{points[best]:+.2f} after centering; the lowest is {worst}, {points[worst]:+.2f}. "
        f"Their mean is {core:.4f}."
    )
    return show(fig, alt, caption)


def stages(caption: str = "") -> Html:
    """The whole way of a run, and the room of the package for each part of it."""
    rooms = ("data/", "data/", "data/", "model/, optim/", "evals/")
    verbs = ("split", "packed", "trained on", "asked")
    drawn = []
    for i, stage in enumerate(STAGES):
        y = 30 + 66 * i
        drawn += [box(190, y, 170, stage), words(290, y + 6, rooms[i], fill=PAINT[0])]
        if i:
            drawn += [
                arrow((190, y - 46), (190, y - 21), colour=PAINT[0]),
                words(204, y - 28, verbs[i - 1], size=14),
            ]
    alt = (
        "Documents are split into tokens, packed into rows, trained on by a model, and it is asked."
    )
    return show(drawing(drawn, 320), alt, caption)
