"""The book's ordinary figures: lines, training curves, heat maps, bars."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from nanogpt2.lab.drawing import show
from nanogpt2.lab.page import Html
from nanogpt2.lab.small_run import SmallRun
from nanogpt2.reporting.figures import COLOURS, DIVERGING, SEQUENTIAL, legend, plotting

LABELS = {
    "bpb": "bits per byte, held out",
    "loss": "training loss (nats per token)",
    "tokens": "tokens",
    "seconds": "seconds of training",
    "step": "step",
}


def lines(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    alt: str,
    x_label: str = "",
    y_label: str = "",
    caption: str = "",
    log_x: bool = False,
    log_y: bool = False,
    height: float = 2.9,
) -> Html:
    """One line for each entry of ``ys`` over the same ``x``."""
    with plotting(height=height) as (fig, axes):
        for name, y in ys.items():
            axes.plot(_numbers(x), _numbers(y), label=name)
        _finish(axes, x_label, y_label, log_x, log_y, len(ys) > 1)
    return show(fig, alt, caption)


def curves(
    runs: Mapping[str, SmallRun | Sequence[SmallRun]],
    *,
    alt: str,
    y: str = "bpb",
    x: str = "tokens",
    caption: str = "",
    skip: int = 1,
    log_y: bool = False,
) -> Html:
    """Curves of runs by name; several seeds of one name are a mean line in the band of all.

    ``skip`` leaves out the first evaluations, which would flatten the rest.
    """
    with plotting() as (fig, axes):
        for index, (name, found) in enumerate(runs.items()):
            group = [found] if isinstance(found, SmallRun) else list(found)
            ys = [run.series(y)[skip if y == "bpb" else 0 :] for run in group]
            xs = group[0].series(x)[-len(ys[0]) :]
            middle = [statistics.fmean(values) for values in zip(*ys, strict=True)]
            axes.plot(xs, middle, label=name)
            if len(group) > 1:
                low = [min(values) for values in zip(*ys, strict=True)]
                high = [max(values) for values in zip(*ys, strict=True)]
                colour = COLOURS[index % len(COLOURS)]
                axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)
        _finish(axes, LABELS.get(x, x), LABELS.get(y, y), False, log_y, len(runs) > 1)
    return show(fig, alt, caption)


def heatmap(
    values: Any,
    *,
    alt: str,
    x_label: str = "",
    y_label: str = "",
    caption: str = "",
    diverging: bool = False,
) -> Html:
    """A matrix as colours, with its scale; diverging maps are centred on zero."""
    numbers = _numbers(values)
    look: dict[str, Any] = {"cmap": SEQUENTIAL}
    if diverging:
        limit = float(abs(numbers).max())
        look = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    with plotting(4.6, 3.5) as (fig, axes):
        picture = axes.imshow(numbers, interpolation="none", aspect="auto", **look)
        axes.grid(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        bar = fig.colorbar(picture, ax=axes, shrink=0.9)
        bar.outline.set_visible(False)
    return show(fig, alt, caption)


def bars(
    values: Mapping[str, float],
    *,
    alt: str,
    x_label: str = "",
    caption: str = "",
    form: str = ".3g",
) -> Html:
    """Horizontal bars, each with its number written at its end."""
    with plotting(5.6, 0.6 + 0.38 * len(values)) as (fig, axes):
        drawn = axes.barh(list(values), list(values.values()), color=COLOURS[0], height=0.6)
        axes.bar_label(drawn, labels=[format(v, form) for v in values.values()], padding=4)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.grid(False, axis="y")
        axes.set_xlabel(x_label)
    return show(fig, alt, caption)


def _numbers(values: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(values, torch.Tensor):
        return values.detach().cpu().float().numpy()
    return np.asarray(values, dtype=float)


def _finish(axes: Any, x_label: str, y_label: str, log_x: bool, log_y: bool, several: bool) -> None:
    scales = {"xscale": "log" if log_x else "linear", "yscale": "log" if log_y else "linear"}
    axes.set(xlabel=x_label, ylabel=y_label, **scales)
    if several:
        legend(axes.figure)
