"""Pictures of the chapter on scaling laws."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nanogpt2 import reported
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab.drawing import show
from nanogpt2.lab.page import Html
from nanogpt2.reporting.figures import COLOURS, INK, legend, plotting
from nanogpt2.studies.scaling_laws.fits import critical_batch, near_lowest, valley
from nanogpt2.studies.scaling_laws.measures import NOT_YET, points_in, printed_law
from nanogpt2.studies.scaling_laws.plan import Plan
from nanogpt2.studies.scaling_laws.summary import Point

SIZES = {"a quarter": 1 / 4, "half": 1 / 2, "best": 1.0, "double": 2.0, "fourfold": 4.0}
"""of a model, against the best"""


def map_of_runs(caption: str = "") -> Html:
    """Parameters by tokens, from this chapter's runs to GPT-3; a budget is a falling diagonal."""
    with plotting(6.6, 5.2) as (fig, axes):
        axes.set(xscale="log", yscale="log", xlim=(3e4, 4e12), ylim=(5e4, 2e13),
                 xlabel="parameters N", ylabel="tokens D")  # fmt: skip
        span = np.array([3e4, 4e12])
        # where each budget's name stands: at its upper end, its lower end, or the right
        for power, x in ((12, 3.7e6), (15, 4e4), (18, 2e6), (21, 1e11), (24, 5e11)):
            axes.plot(span, 10**power / 6 / span, color=INK, alpha=0.3, lw=1, ls="-")
            y = 5.6e4 if power == 12 else 10**power / 6 / x
            axes.text(x, y, f" $10^{{{power}}}$ FLOPs", fontsize=10, va="bottom",
                      rotation=0 if power == 12 else -33, rotation_mode="anchor")  # fmt: skip
        ratio = reported.CHINCHILLA_TOKENS / reported.CHINCHILLA_PARAMETERS
        axes.plot(span, ratio * span, color=COLOURS[5], ls=(0, (5, 2)), lw=1.4)
        axes.text(2e7, ratio * 2e7 * 1.5, f"D = {ratio:.0f} N", fontsize=10, ha="right")
        made = [dial(recipe=recipe) for recipe in Plan().grid.values()]
        axes.scatter([m.scaling_parameters for m in made], [m.tokens for m in made], s=14,
                     color=COLOURS[0], zorder=3)  # fmt: skip
        axes.text(1.3e7, 7e5, "this chapter's runs", color=COLOURS[0], fontsize=11)
        N = [math.sqrt(C / 6 / at.ratio) for C, at in reported.VALLEYS.items()]
        D = [C / 6 / n for n, C in zip(N, reported.VALLEYS, strict=True)]
        axes.scatter(N, D, s=26, marker="^", color=COLOURS[2], zorder=3)
        axes.text(N[-1] * 1.6, D[0], "best of each budget,\nrun 1's model", color=COLOURS[2],
                  fontsize=11, va="top")  # fmt: skip
        runs = [dial(recipe=name) for name in reported.LEADERBOARD]
        axes.scatter([m.scaling_parameters for m in runs], [m.tokens for m in runs], s=26,
                     marker="s", color=COLOURS[1], zorder=3)  # fmt: skip
        axes.text(runs[0].scaling_parameters * 1.9, runs[0].tokens, "the six records",
                  color=COLOURS[1], fontsize=11)  # fmt: skip
        others = (
            ("GPT-3", reported.GPT3_PARAMETERS, reported.GPT3_TOKENS),
            ("Chinchilla", reported.CHINCHILLA_PARAMETERS, reported.CHINCHILLA_TOKENS),
        )
        for name, n, d in others:
            axes.scatter([n], [d], s=34, marker="D", color=COLOURS[3], zorder=3)
            axes.text(n / 1.5, d, name, color=COLOURS[3], fontsize=11, ha="right")
    alt = (
        "A map with parameters to the right and tokens upwards, both in powers of ten. One budget "
        "of FLOPs is a falling diagonal; there is one for every factor of a thousand. Few small "
        "dots at the lower left are this chapter's runs, six squares in the middle the records, "
        "two diamonds at the upper right GPT-3 and Chinchilla. A rising line has twenty tokens "
        "for each parameter: Chinchilla lies on it, GPT-3 far below it."
    )
    return show(fig, alt, caption)


def valley_frame(FLOPs: float, size: str) -> tuple[Figure, str]:
    """One budget, spent on models of many sizes, by a reported law; a frame for ``explore``."""
    law, off = printed_law("besiroglu2024chinchilla"), SIZES[size]
    N, D = law.best(FLOPs)
    x = N * np.geomspace(1 / 50, 50, 80)
    short, small = law.B / (FLOPs / 6 / x) ** law.beta, law.A / x**law.alpha
    with plotting(5.6, 3.8) as (fig, axes):
        axes.stackplot(x, small, short, colors=[COLOURS[0], COLOURS[1]], alpha=0.35, lw=0,
                       labels=["too small a model", "too short a run"])  # fmt: skip
        axes.plot(x, small + short, color=INK, ls="-", label="both")
        here = law(N * off, D / off) - law.E
        axes.plot([N * off], [here], "o", color=COLOURS[3], ls="none", label="chosen")
        axes.set(xscale="log", xlabel="parameters N", ylim=(0, 2.6 * (law(N, D) - law.E)),
                 ylabel="nats a token above E")  # fmt: skip
        legend(fig, 2)
    more = law.compute_factor(off) - 1
    told = (
        f"{FLOPs:.2g} FLOPs: {N * off:.2g} parameters and {D / off:.2g} tokens, "
        f"{D / off / (N * off):.0f} for each. "
        + (
            "This is the best."
            if off == 1
            else f"To end as low as the best: {more:.0%} more FLOPs."
        )
    )
    axes.set_title(_wrapped(told), fontsize=10)
    return fig, f"A valley over the number of parameters. {told}"


def parabola(sizes: Sequence[float], bpb: Sequence[float], N: str = "") -> tuple[Figure, str]:
    """Runs of one budget and the parabola around the lowest, with what it says.

    ``sizes`` are in rising order; ``N`` says what they count.
    """
    x = [math.log(size) for size in sizes]
    with plotting(5.6, 3.2) as (fig, axes):
        axes.plot(sizes, bpb, "o", color=COLOURS[0], ls="none")
        label = f"parameters N ({N})" if N else "parameters N"
        axes.set(xscale="log", xlabel=label, ylabel="bits per byte, held out")
        apart = [n for n, last in zip(sizes, [0, *sizes], strict=False) if n > 1.3 * last]
        axes.set_xticks(apart, [_short(n) for n in apart])
        axes.xaxis.set_minor_formatter(NullFormatter())
        try:
            best, low = valley(x, bpb)
        except UserError as error:
            said = f"No best size: {error}."
        else:
            used, means = near_lowest(x, bpb)
            curve = np.polyfit(used, means, 2)
            line = np.linspace(used[0], used[-1], 50)
            axes.plot(np.exp(line), np.polyval(curve, line), color=COLOURS[1], ls="-")
            axes.plot([math.exp(best)], [low], "D", color=COLOURS[3], ls="none")
            said = f"Lowest at {math.exp(best):,.0f} parameters, {low:.4f} bits per byte."
        axes.set_title(_wrapped(said), fontsize=10)
    told = ", ".join(f"{n:,.0f} {b:.4f}" for n, b in zip(sizes, bpb, strict=True))
    return fig, f"Bits per byte over parameters: {told}. {said}"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 58))


def _short(value: float) -> str:
    """A size as an axis writes it: 78k, 1.9M."""
    if value >= 1e6:
        return f"{value / 1e6:.1f}M"
    return f"{value / 1e3:.0f}k" if value >= 1e3 else f"{value:g}"


def _few_ticks(axis: Any) -> None:
    """1, 2 and 5 of each decade of a logarithmic axis, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def grid_frames(results: Mapping[str, Any]) -> Callable[..., tuple[Figure, str]]:
    """Frames for ``explore``: the record's runs at one budget, by one count of N."""
    points = points_in(results)

    def frame(FLOPs: float, N_counts: str) -> tuple[Figure, str]:
        at = [point for point in points if point.budget == FLOPs]
        if not at:
            return _nothing()
        return parabola(*_means(at, N_counts), N_counts)

    return frame


def _means(points: Sequence[Point], way: str) -> tuple[list[float], list[float]]:
    """Sizes in rising order, and the mean of the runs at each."""
    by_size: dict[float, list[float]] = {}
    for point in points:
        by_size.setdefault(point.N[way], []).append(point.bpb)
    sizes = sorted(by_size)
    return sizes, [statistics.fmean(by_size[size]) for size in sizes]


def _nothing() -> tuple[Figure, str]:
    """An empty figure that says why."""
    with plotting(5.6, 3.2) as (fig, axes):
        axes.text(0.5, 0.5, NOT_YET, ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    return fig, f"An empty figure: {NOT_YET}."


def growth_lines(results: Mapping[str, Any], caption: str = "") -> Html:
    """Exponents of the best size, recorded with intervals and reported by others, on one axis."""
    ours = [
        (f"{how}; {way}", told[name])
        for way, told in results["laws"].items()
        for how, name in (("parabolas", "N_growth"), ("law", "exponent"))
        if told[name]
    ]
    theirs = [(f"{reported.SOURCES[g.key]}: {g.how}; {g.counts}", g.n) for g in reported.GROWTHS]
    said = []
    with plotting(6.6, 0.9 + 0.3 * (len(ours) + len(theirs))) as (fig, axes):
        for y, (name, told) in enumerate(ours):
            low, high = (told[k] if told[k] is not None else told["value"] for k in ("low", "high"))
            axes.plot([low, high], [y, y], color=COLOURS[0], ls="-")
            axes.plot([told["value"]], [y], "o", color=COLOURS[0])
            said.append(f"{name} {told['value']:.2f}, {low:.2f} to {high:.2f}")
        for y, (name, n) in enumerate(theirs, len(ours)):
            axes.plot([n], [y], "D", color=COLOURS[1])
            said.append(f"{name} {n:.2f}")
        axes.set_yticks(range(len(ours) + len(theirs)), [name for name, _ in [*ours, *theirs]])
        axes.axvline(0.5, color=INK, alpha=0.4, lw=1, ls="-")
        axes.invert_yaxis()
        axes.set(xlabel="a, where best N ~ $C^a$")
    alt = "Exponents of the best size, this chapter's with intervals and others': " + "; ".join(
        said
    )
    return show(fig, alt, caption)


def batch_lines(results: Mapping[str, Any], caption: str = "") -> Html:
    """Tokens to one loss over the batch at the recorded sizes, with the fitted rise."""
    if not any(told["tokens"] for told in results["batches"].values()):
        return show(*_nothing(), caption)
    said = []
    with plotting(5.6, 3.2) as (fig, axes):
        for i, (depth, told) in enumerate(results["batches"].items()):
            batch = [int(each) for each in told["tokens"]]
            tokens = [*told["tokens"].values()]
            axes.plot(batch, tokens, "os"[i % 2], color=COLOURS[i], ls="none",
                      label=f"depth {depth}, to {told['wanted']:.2f} bits")  # fmt: skip
            said.append(f"depth {depth}: " + ", ".join(
                f"{b:,} {t:,.0f}" for b, t in zip(batch, tokens, strict=True)))  # fmt: skip
            if told["critical"]:
                critical, fewest = critical_batch(batch, tokens)
                x = np.geomspace(min(batch), max(batch), 40)
                axes.plot(x, fewest * (1 + x / critical), color=COLOURS[i])
        axes.set(xscale="log", yscale="log", xlabel="batch (tokens a step)", ylabel="tokens needed")
        _few_ticks(axes.xaxis)
        _few_ticks(axes.yaxis)
        legend(fig, 2)
    return show(fig, f"Tokens needed for one loss by batch. {'; '.join(said)}.", caption)


def rate_frames(results: Mapping[str, Any]) -> Callable[..., tuple[Figure, str]]:
    """Frames for ``explore``: bits per byte over one optimizer's rate, a line for each width."""
    names = {"Muon": "muon.lr", "AdamW": "matrices_adamw.lr"}

    def frame(optimizer: str) -> tuple[Figure, str]:
        told = results["rates"][names[optimizer]]
        if not any(told["tried"].values()):
            return _nothing()
        said = []
        with plotting(5.6, 3.2) as (fig, axes):
            for width, ends in told["tried"].items():
                if ends:
                    axes.plot(*zip(*ends, strict=True), marker="o", label=f"width {width}")
                    said.append(f"width {width}: " + ", ".join(f"{r:.4f} {b:.3f}" for r, b in ends))
            axes.set(xscale="log", xlabel=f"{optimizer}'s rate, as it acts on the matrices",
                     ylabel="bits per byte, held out")  # fmt: skip
            _few_ticks(axes.xaxis)
            legend(fig)
        return fig, f"Ends by rate and width for {optimizer}. {'; '.join(said)}."

    return frame
