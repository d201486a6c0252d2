"""Pictures of the chapter on ZeRO-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.lab.drawing import (
    PAINT,
    PAPER,
    arrow,
    box,
    cells,
    drawing,
    opening,
    rect,
    show,
    words,
)
from nanogpt2.lab.page import Html
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.studies.zero2.tables import stages_memory

WORLD = 4
PHASES = ("launch", "update", "finish")


EXAMPLE = ((1, 5, 2, 6), (3, 3, 4, 4), (2, 6, 1, 7), (2, 2, 5, 3))
"""the gradient on each of four ranks, which the chapter reckons with by hand; parameters are 10"""


def shared_step(caption: str = "") -> Html:
    """The chapter's idea: gradients meet in parts, owners update them, parameters go around."""
    means = [sum(part) / WORLD for part in zip(*EXAMPLE, strict=True)]
    new = [10 - mean for mean in means]
    drawn = []
    for rank, gradient in enumerate(EXAMPLE):
        x = 4 + 122 * rank
        part, own = x + 26.5 * (rank + 0.5), ["", "", "", ""]
        drawn += [
            box(x + 53, 22, 106, f"rank {rank}"),
            *(arrow((x + 53, y), (x + 53, y + 46)) for y in (42, 120, 276)),
            arrow((part, 198), (part, 244)),
            cells(x, 90, [gradient], 26.5, PAINT[1]),
            cells(x, 168, [[*own[:rank], f"{means[rank]:g}", *own[rank + 1 :]]], 26.5, PAINT[1]),
            cells(x, 246, [[*own[:rank], f"{new[rank]:g}", *own[rank + 1 :]]], 26.5, PAINT[0]),
            cells(x, 324, [new], 26.5, PAINT[0]),
        ]
    bands = (
        (52, "its rows of the batch, backward: a whole gradient"),
        (130, "reduce-scatter: the mean, one part to each"),
        (208, "its optimizer, with one part of the state"),
        (286, "all-gather: everybody's part to everybody"),
    )
    for y, text in bands:
        drawn += [
            rect(4, y, 472, 22, PAPER),
            rect(4, y, 472, 22, "currentColor", fill_opacity=".1"),
            words(240, y + 16, text, "middle", 15),
        ]
    drawn.append(words(240, 378, "the same new parameters on every rank", "middle", 15))
    alt = (
        f"Four ranks with four gradients each. Reduce-scatter leaves one mean on each rank: "
        f"{', '.join(f'{m:g}' for m in means)}. Each rank updates its parameter, from 10 to "
        f"{', '.join(f'{n:g}' for n in new)}, and all-gather gives all four to all."
    )
    return opening(drawn, 388, alt, caption)


def after(collective: str, held: Sequence[Sequence[int]]) -> list[list[int | str]]:
    """What each rank holds after a collective; empty where it was given nothing for a place."""
    sums = [sum(part) for part in zip(*held, strict=True)]
    ranks = range(len(held))
    if collective == "broadcast":
        return [list(held[0]) for _ in ranks]
    if collective == "all-reduce":
        return [list(sums) for _ in ranks]
    if collective == "reduce-scatter":
        return [[sums[i] if i == rank else "" for i in ranks] for rank in ranks]
    return [[row[i] for i, row in enumerate(held)] for _ in ranks]


def collective_frame(collective: str) -> tuple[str, str]:
    """What four ranks hold before and after a collective; a frame for ``explore``."""
    held: list[list[int | str]] = [[10 * (rank + 1) + i for i in range(WORLD)] for rank in range(4)]
    found = after(collective, held)  # type: ignore[arg-type]
    if collective == "all-gather":
        held = [
            [n if i == rank else "" for i, n in enumerate(row)] for rank, row in enumerate(held)
        ]
    drawn = []
    for rank in range(WORLD):
        x = 2 + 120 * rank
        drawn += [words(x + 58, 20, f"rank {rank}", "middle", 15),
                  cells(x, 32, [held[rank]], 29, PAINT[1]),
                  arrow((x + 58, 62), (x + 58, 84)),
                  arrow((x + 58, 108), (x + 58, 130)),
                  cells(x, 132, [found[rank]], 29, PAINT[0])]  # fmt: skip
    drawn += [rect(2, 85, 476, 22, "currentColor", fill_opacity=".1"),
              words(240, 102, collective, "middle")]  # fmt: skip
    listed = "; ".join(f"rank {r}: {', '.join(str(n) for n in row if n != '')}"
                       for r, row in enumerate(found))  # fmt: skip
    return drawing(drawn, 176), f"After {collective}, {listed}."


def phases_picture(caption: str = "") -> Html:
    """A step in its three phases: what is on the wire while the processor updates."""
    buffers = (("head", 2, 1), ("embedding", 2, 1), ("Muon's stack", 4, 3))  # on the wire, at work
    wire, work = 0.0, 0.0
    arrived, bars = [], []
    for number, (_, travel, _) in enumerate(buffers, 1):
        wire += travel
        arrived.append(wire)
        bars.append((0, wire - travel, travel, number, PAINT[1]))
    for number, ((_, travel, update), at) in enumerate(zip(buffers, arrived, strict=True), 1):
        work = max(work, at) + update
        bars.append((1, work - update, update, number, PAINT[2]))
        wire = max(wire, work) + travel
        bars.append((0, wire - travel, travel, number, PAINT[0]))
    unit = 460 / wire
    drawn = [words(10, 20, "on the wire", size=15), words(10, 118, "at work", size=15)]
    for lane, start, length, number, colour in bars:
        x, y = 10 + unit * start, 30 + 98 * lane
        drawn.append(rect(x, y, unit * length - 2, 46, colour, fill_opacity=".25", stroke=colour))
        drawn.append(words(x + unit * length / 2 - 1, y + 29, str(number), "middle"))
    signs = ((10, PAINT[1], "reduce"), (100, PAINT[2], "update"), (190, PAINT[0], "gather"))
    for x, colour, name in signs:
        drawn += [rect(x, 196, 16, 16, colour, fill_opacity=".25", stroke=colour),
                  words(x + 24, 210, name, size=15)]  # fmt: skip
    listed = ", ".join(f"{i} {name}" for i, (name, _, _) in enumerate(buffers, 1))
    drawn.append(words(10, 238, listed, size=15))
    alt = (
        "Two lanes over time. On the wire three reductions follow each other; as each ends, the "
        "processor updates that part while the next still travels, and its gather follows. The "
        "last gather alone has nothing beside it."
    )
    return show(drawing(drawn, 246), alt, caption)


def ring_parts(step: int, world: int = WORLD) -> list[list[set[int]]]:
    """Whose numbers are summed in chunk c of rank r after ``step`` rounds of a ring: [r][c].

    W - 1 rounds of reduce-scatter, then W - 1 of all-gather; each rank sends one chunk a round.
    """
    held = [[{rank} for _ in range(world)] for rank in range(world)]
    for s in range(step):
        gather = s >= world - 1
        parts = [(r, c, set(held[r][c])) for r in range(world) for c in [(r - s) % world]]
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
    return drawing(body, 292), alt


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
