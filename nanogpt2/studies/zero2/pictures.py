"""Pictures of the chapter on ZeRO-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.lab.drawing import PAINT, drawing, rect, show, words
from nanogpt2.lab.page import Html
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.studies.zero2.tables import stages_memory

WORLD = 4
PHASES = ("launch", "update", "finish")


def ring_parts(step: int, world: int = WORLD) -> list[list[set[int]]]:
    """Whose numbers are summed in chunk c of rank r after ``step`` rounds of a ring: [r][c].

    W - 1 rounds of reduce-scatter, then W - 1 of all-gather; each rank sends one chunk a round.
    """
    held = [[{rank} for _ in range(world)] for rank in range(world)]
    for s in range(step):
        gather = s >= world - 1
        sent = [(r, (r - s) % world) for r in range(world)]
        sent = [(r, (r + 1 - (s - world + 1)) % world) for r in range(world)] if gather else sent
        parts = [(r, c, set(held[r][c])) for r, c in sent]
        for r, c, part in parts:
            following = (r + 1) % world
            held[following][c] = part if gather else held[following][c] | part
    return held


def ring_frame(round: int) -> tuple[str, str]:
    """Four ranks in a ring, four chunks each, after so many rounds; a frame for ``explore``."""
    held, body, told = ring_parts(round), [], []
    for r in range(WORLD):
        body.append(words(112 + 96 * r, 20, f"rank {r}", "middle"))
        if r < WORLD - 1:
            body.append(words(160 + 96 * r, 20, "→", "middle"))
        for c in range(WORLD):
            fill = PAINT[len(held[r][c]) == WORLD]
            share = f"{0.15 + 0.6 * len(held[r][c]) / WORLD:.2f}"
            look = {"fill_opacity": share, "stroke": "currentColor", "stroke_opacity": ".4"}
            body.append(rect(68 + 96 * r, 34 + 56 * c, 88, 46, fill, rx=5, **look))
            text = "+".join(str(n) for n in sorted(held[r][c]))
            body.append(words(112 + 96 * r, 63 + 56 * c, text, "middle", 15))
        told.append(f"rank {r}: " + ", ".join(str(len(part)) for part in held[r]))
    body += [words(4, 63 + 56 * c, f"part {c}", size=15) for c in range(WORLD)]
    phase = (
        "at first" if round == 0
        else f"reduce-scatter, round {round} of {WORLD - 1}" if round < WORLD
        else f"all-gather, round {round - WORLD + 1} of {WORLD - 1}"
    )  # fmt: skip
    body.append(words(68, 282, phase))
    alt = f"{phase}: summands in each of four parts. {'; '.join(told)}; complete means 4."
    return drawing("".join(body), 292), alt


def memory_frame(depth: int, ranks: int, tables: str) -> tuple[Figure, str]:
    """``stages_memory`` as bars; a frame for ``explore``."""
    found = stages_memory(depth, ranks, tables == "bf16")
    names = list(found)
    with plotting(height=2.5) as (fig, axes):
        left = [0.0] * len(names)
        for i, part in enumerate(("parameters", "gradients", "optimizer")):
            values = [found[name][i] for name in names]
            axes.barh(names, values, left=left, color=COLOURS[i], label=part, height=0.6)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="GB on each rank")
        axes.grid(False, axis="y")
        legend(fig)
    totals = ", ".join(f"{name} {sum(found[name]):.1f}" for name in names)
    return fig, f"Depth {depth} on {ranks} ranks, tables in {tables}. GB on each: {totals}."


def timeline(ranks: Sequence[dict[str, Any]], caption: str = "") -> Html:
    """When each rank was in which phase of the step, by its own clock."""
    spent = dict.fromkeys(PHASES, 0.0)
    with plotting(height=2.6) as (fig, axes):
        for lane, rank in enumerate(ranks):
            for event in rank["events"]:
                width = event["stop"] - event["start"]
                spent[event["phase"]] += width / len(ranks)
                look = {"color": COLOURS[PHASES.index(event["phase"])], "edgecolor": "white"}
                axes.barh(lane, width, 0.62, event["start"], linewidth=0.4, **look)
        axes.set(xlabel="seconds since the backward pass ended", yticks=range(len(ranks)))
        axes.set_yticklabels([f"rank {n}" for n in range(len(ranks))])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        for i, phase in enumerate(("1 launch", "2 update", "3 finish")):
            axes.barh([0], [0], color=COLOURS[i], label=phase)
        legend(fig)
    told = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in spent.items())
    alt = f"A lane for each of {len(ranks)} ranks with the three phases of the step. Mean: {told}."
    return show(fig, alt, caption)
