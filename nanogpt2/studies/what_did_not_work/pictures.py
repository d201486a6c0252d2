"""Pictures and tables of the chapter on what did not work."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from nanogpt2.lab.claims import table
from nanogpt2.lab.drawing import PAINT, arrow, box, opening, show, words
from nanogpt2.lab.page import Html
from nanogpt2.lab.records import Record
from nanogpt2.reported import LEADERBOARD, RESIDUAL_SCALARS_BPB, SOURCES
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.studies.what_did_not_work.listed import ENDED_BY, LISTED
from nanogpt2.studies.what_did_not_work.measures import exponent, one_seed, shrinkage, tried

GATES = {
    "loss": "less loss at equal steps?",
    "memory": "does it fit?",
    "clock": "less loss at equal time?",
    "size": "in a large model, too?",
    "code": "worth its code?",
}
RUN1 = LEADERBOARD["run1"]
OF_LIST = "; ".join(dict.fromkeys(SOURCES[row.key] for row in LISTED))
"""sources of the list"""


def sieve(caption: str = "") -> Html:
    """The drawing that opens the chapter: the gates that an idea passes, and how many end there."""
    ended, left = Counter(row.ended_by for row in LISTED), len(LISTED)
    asked = [gate for gate in GATES if ended[gate]]
    body, told = [box(130, 26, 240, f"{left} ideas")], [f"{left} ideas go in"]
    for i, gate in enumerate(asked):
        y = 106 + 80 * i
        left -= ended[gate]
        short = [row.idea for row in LISTED if row.ended_by == gate and len(row.idea) < 25]
        example = max(short, key=len)  # one that fits beside its gate
        body += [
            arrow((130, y - 60), (130, y - 20), width=3),
            box(130, y, 240, GATES[gate], fill=PAINT[0]),
            arrow((250, y), (284, y), colour=PAINT[1]),
            words(292, y - 4, f"{ended[gate]} end here", fill=PAINT[1]),
            words(292, y + 15, example, size=14),
        ]
        told.append(f"{GATES[gate]} {ended[gate]} end here, for one {example}")
    last = 106 + 80 * len(asked)
    body += [
        arrow((130, last - 60), (130, last - 20), width=3),
        box(130, last, 240, f"{left} of them stay" if left else "none of these stays"),
    ]
    alt = f"A column of gates. {'. '.join(told)}. {left} come out."
    return opening(body, last + 28, alt, caption)


def listed_table(caption: str = "") -> Html:
    """All ideas that were reported as left out, to be sorted by any column."""
    rows = [
        [row.idea, row.said, row.ended_by, row.depth, row.gigabytes, row.time, row.part, row.day]
        for row in LISTED
    ]
    headers = ["idea", "what was reported", "ended by", "depth", "GB", "time", "part", "day"]
    return table(headers, rows, "reported", OF_LIST, caption=caption, sortable=True)


def ends_table(caption: str = "") -> Html:
    """How an idea ends, what that means, and how often it was the case."""
    ended = Counter(row.ended_by for row in LISTED)
    rows = [[end, meaning, ended[end]] for end, meaning in ENDED_BY.items() if ended[end]]
    return table(["ended by", "that is", "ideas"], rows, "reported", OF_LIST, caption=caption)


def tried_table(kept: Record, caption: str = "") -> Html:
    """Difference, interval, verdict, and seconds of each idea that was tried again."""
    rows = [
        [w.idea.title, f"{w.found.difference:+.4f}", w.found.interval, str(w.found.seeds),
         w.verdict, "" if w.slower is None else f"{round(w.slower - 1, 2) + 0.0:+.0%}"]
        for w in tried(kept).values()
    ]  # fmt: skip
    headers = ["idea", "bits per byte, with it", "95% interval", "seeds", "verdict", "time"]
    return table(headers, rows, "recorded", kept, caption=caption)


def expected_table(kept: Record, caption: str = "") -> Html:
    """What was expected, found and reported, a sign each."""
    rows = []
    for worth in tried(kept).values():
        idea = worth.idea
        rows.append([idea.title, idea.form, idea.expected, idea.because, worth.sign, idea.reported])
    headers = ["idea", "what was changed", "expected", "because", "found", "reported"]
    return table(headers, rows, "recorded", kept, caption=caption)


def tried_picture(kept: Record, caption: str = "") -> Html:
    """Each idea's difference as a point with its interval."""
    found = list(tried(kept).values())
    with plotting(6.4, 0.9 + 0.4 * len(found)) as (fig, axes):
        for row, worth in enumerate(found):
            colour = COLOURS[{"-": 0, "+": 1}.get(worth.sign, 5)]
            margin = worth.found.margin if math.isfinite(worth.found.margin) else 0.0
            axes.errorbar(
                worth.found.difference, row, xerr=margin, fmt="o", color=colour, capsize=3
            )
        axes.axvline(0, color=COLOURS[5], linewidth=1, linestyle="-")
        axes.set_yticks(range(len(found)), [worth.idea.title for worth in found])
        axes.invert_yaxis()
        axes.set_xlabel("bits per byte, with minus without")
    told = "; ".join(f"{w.idea.title} {w.found.difference:+.4f}" for w in found)
    return show(fig, f"A point and an interval for each idea: {told}.", caption)


def seeds_table(kept: Record, caption: str = "") -> Html:
    """How often a single pair, and two runs of different seeds, say the same as all pairs."""
    told, found = one_seed(kept), tried(kept)
    rows = [
        [
            found[key].idea.title,
            f"{found[key].found.difference:+.4f}",
            f"{pair:.0%}",
            f"{any_two:.0%}",
        ]
        for key, (pair, any_two) in told.items()
    ]
    headers = ["idea", "mean of all pairs", "one pair has its sign", "any two runs have it"]
    return table(headers, rows, "recorded", kept, caption=caption)


def untuned_picture(kept: Record, ladder: Record, caption: str = "") -> Html:
    """A rival at the rates that were tried for it, above the effects of the ideas."""
    tried_rates = sorted(ladder.results["sweep"]["adamw"]["matrices_adamw.lr"])
    rates = [(f"AdamW at {rate:g}", bpb) for rate, bpb in tried_rates if bpb is not None]
    best = min(bpb for _, bpb in rates)
    bars = [(name, bpb - best, COLOURS[1]) for name, bpb in rates]
    bars += [(w.idea.title, abs(w.found.difference), COLOURS[0]) for w in tried(kept).values()]
    names, sizes, colours = zip(*bars, strict=True)
    with plotting(6.4, 0.9 + 0.3 * len(bars)) as (fig, axes):
        axes.barh(range(len(bars)), sizes, color=colours)
        axes.set_yticks(range(len(bars)), names)
        axes.invert_yaxis()
        axes.set_xlabel("bits per byte")
    told = "; ".join(f"{name} {value:.4f}" for name, value, _ in bars)
    return show(fig, f"Bars. {told}.", caption)


def clock_frame(slower: float, gain: float) -> tuple[Figure, str]:
    """Run 1's bits per byte over its hours, and an idea that costs time and saves bits."""
    hours = np.linspace(0.65, 1.7, 60) * RUN1.hours
    here, bits = RUN1.hours * (1 + slower), RUN1.val_bpb - gain
    line = RUN1.val_bpb * (hours / RUN1.hours) ** -exponent()
    same = RUN1.hours * (bits / RUN1.val_bpb) ** (-1 / exponent())
    with plotting(5.6, 2.9) as (fig, axes):
        axes.plot(hours, line, color=COLOURS[5], linestyle="-", label="run 1 at other lengths")
        axes.plot(RUN1.hours, RUN1.val_bpb, "o", color=COLOURS[5], label="run 1")
        axes.plot(here, bits, "s", color=COLOURS[0 if here < same else 1], label="with the idea")
        axes.plot([here, same], [bits, bits], ":", color=COLOURS[5])
        axes.set(xlabel="hours on 8xH100", ylabel="bits per byte", ylim=(0.726, 0.772))
        legend(fig)
    word = "wins" if here < same else "loses"
    alt = (
        f"With steps {slower:.0%} slower and {gain:g} bits per byte less, the idea needs "
        f"{here:.2f} hours; run 1 alone would be as good after {same:.2f}: by the clock it {word}."
    )
    return fig, alt


def by_depth_picture(caption: str = "") -> Html:
    """The residual scalars' reported effect by depth, and the power of depth through it."""
    start, power = shrinkage()
    depths = np.linspace(6, 28, 60)
    with plotting(5.6, 2.7) as (fig, axes):
        axes.plot(depths, -start * depths**-power, color=COLOURS[5], linestyle="-",
                  label="a power of the depth")  # fmt: skip
        axes.plot(*zip(*RESIDUAL_SCALARS_BPB.items(), strict=True), "o", color=COLOURS[0],
                  label="reported")  # fmt: skip
        axes.axhline(0, color=COLOURS[5], linewidth=1, linestyle=":")
        axes.set(xlabel="depth", ylabel="bits per byte")
        legend(fig)
    told = ", ".join(f"depth {depth} {value:+.4f}" for depth, value in RESIDUAL_SCALARS_BPB.items())
    alt = f"Points that rise towards zero: {told}. The line falls as depth to the -{power:.2f}."
    return show(fig, alt, caption)
