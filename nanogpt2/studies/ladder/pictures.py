"""The ladder's record as tables and pictures: what a technique is worth, expected and reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanogpt2.lab.claims import claim, claims, table
from nanogpt2.lab.drawing import show
from nanogpt2.lab.page import Html, inline
from nanogpt2.lab.page import part as part_of
from nanogpt2.lab.records import Record
from nanogpt2.lab.trials import processors
from nanogpt2.recipes import YARDSTICK
from nanogpt2.reported import EFFECTS, SEEDS_BPB_SD, SEEDS_CORE_SD, Effect
from nanogpt2.reporting.figures import COLOURS, legend, plotting
from nanogpt2.reporting.statistics import (
    Comparison,
    Multiplier,
    compare,
    multiplier,
    seeds_needed,
    verdicts,
)
from nanogpt2.rungs import Ladder
from nanogpt2.studies.ladder import expectations
from nanogpt2.studies.ladder.expectations import EXPECTATIONS, Expectation
from nanogpt2.studies.ladder.plan import DEEPER, Plan

NOTHING = Effect("", "not reported by itself")
NOT_YET, REPORTED = "not recorded yet", "reported at d8 to d26"
UNITS = {"flops": "FLOPs", "seconds": "seconds"}


@dataclass(frozen=True)
class Worth:
    """One technique: what was found, expected and reported."""

    title: str
    found: Comparison
    """bits per byte with it minus without"""
    compute: dict[str, Multiplier]
    """by unit, where the top's curve of compute is complete"""
    expected: Expectation
    reported: Effect

    @property
    def sign(self) -> str:
        """-, + or 0, as of an expectation; nothing where one seed cannot tell."""
        if math.isinf(self.found.margin):
            return ""
        return ("-" if self.found.difference < 0 else "+") if self.found.distinguishable else "0"

    def agrees(self, with_sign: str) -> str:
        """Whether what was found is what was said."""
        if not (self.sign and with_sign):
            return "cannot tell"
        return "yes" if self.sign == with_sign else "no"


def worths(kept: Record, part: str, packing: str = "bpb") -> dict[str, Worth]:
    """Key of a technique -> its worth; ``part`` is "without", "up" or "later"."""
    found = {}
    for key, told in kept.results["effects"][part].items():
        found[key] = Worth(
            told["title"],
            compare(told[f"{packing}_with"], told[f"{packing}_without"]),
            {u: multiplier(told[u], told["extrapolated"]) for u in UNITS if told.get(u)},
            EXPECTATIONS[key],
            EFFECTS.get(key, NOTHING),
        )
    return found


def worth_table(kept: Record, part: str, *keys: str, caption: str = "") -> Html:
    """What techniques are worth: difference, interval, and the verdict of the whole part's table.

    All that is planned, with compute multipliers; with ``keys`` those alone, for a chapter: with
    what was reported, and below it in words what goes against that or against the run's own choice.
    """
    found, lost = worths(kept, part), _lost(kept, part)
    said = _said(found, lost)
    headers = ["technique", "bits per byte, with it", "95% interval", "seeds", "verdict"]
    headers += [REPORTED] if keys else [f"compute multiplier, {name}" for name in UNITS.values()]
    titles = _titles(part)
    rows = list[list[Any]]()
    for key in keys or titles:
        if worth := found.get(key):
            rows.append([worth.title, f"{worth.found.difference:+.4f}", worth.found.interval])
            rows[-1] += [str(worth.found.seeds), said[key]]
        else:
            rows.append([titles[key], "" if key in lost else NOT_YET, "", "", said.get(key, "")])
        if keys:
            rows[-1].append(EFFECTS.get(key, NOTHING).said)
        else:
            rows[-1] += [str(worth.compute.get(unit, "")) if worth else "" for unit in UNITS]
    shown = table(headers, rows, "recorded", kept, caption=caption)
    notes = [_against(found[key], said[key]) for key in keys if key in found]
    return claims(shown, *([_sentences(notes)] if any(notes) else [])) if keys else shown


def packing_claims(kept: Record) -> Html:
    """What rows that begin with a document are worth, scored on such rows and on a stream's."""
    found = []
    for which, packing in (("such rows", "bpb"), ("rows of one stream", "bpb_stream")):
        worth = worths(kept, "without", packing).get("best_fit")
        what = f"rows that begin with a document, scored on {which}"
        found.append(claim(what, str(worth.found) if worth else NOT_YET, "recorded", kept))
    return claims(*found)


def _lost(kept: Record, part: str) -> dict[str, list[int]]:
    """Key -> seeds of which a run of the comparison diverged, where there are any."""
    lost: dict[str, dict[str, list[int]]] = kept.results.get("diverged", {})
    return lost.get(part, {})


def _said(found: Mapping[str, Worth], lost: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Verdicts of a whole table, Holm's; a single pair counts in it, and has none of its own.

    ``lost``: seeds that diverged, of each key that has any.
    """
    single = {key for key, worth in found.items() if math.isinf(worth.found.margin)}
    said = verdicts({key: worth.found for key, worth in found.items()}, lost)
    return {**said, **dict.fromkeys(single - lost.keys(), "one seed cannot tell")}


def _titles(part: str) -> dict[str, str]:
    """Key -> title of each comparison of a table, recorded or not."""
    return {pair.key: pair.title for pair in Plan(Ladder(), ()).pairs[part]}


def _against(worth: Worth, verdict: str) -> str:
    """A sentence where a verdict goes against a report or the run's own choice; else empty."""
    sign = "-" if verdict.startswith("better") else "+" if verdict.startswith("worse") else "0"
    expected = sign != "+" and worth.reported.sign in ("", sign)
    if math.isinf(worth.found.margin) or expected:
        return ""
    choice = ", against the run's own choice" * (sign == "+")
    told = "" if worth.reported is NOTHING else "reported: "
    name = worth.title[0].upper() + worth.title[1:]
    return f"{name}: {verdict}{choice}; {told}{worth.reported.said}."


def _sentences(notes: Sequence[str]) -> Html:
    text = " ".join(filter(None, [*notes, "A small model is not a small version of a large one."]))
    return Html(part_of("note", f"<div>{inline(text)}</div>"), text)


def expected_table(kept: Record, part: str) -> Html:
    """What was written down before, whether it came true, and what was reported at scale."""
    caption = "Signs, each by its own interval: - less loss, + more, 0 no difference"
    found, lost, rows = worths(kept, part), _lost(kept, part), list[list[Any]]()
    for key, title in _titles(part).items():
        expected, reported = EXPECTATIONS[key], EFFECTS.get(key, NOTHING)
        worth = found.get(key)
        size = "" if expected.size is None else f" {abs(expected.size):.4f}"
        rows.append(
            [
                title,
                expected.sign + size,
                expected.why,
                worth.sign if worth else "" if key in lost else NOT_YET,
            ]
            + [worth.agrees(expected.sign) if worth else "", reported.said]
            + [worth.agrees(reported.sign) if worth else ""]
        )
    headers = ["technique", "expected", "because", "found", "as expected", REPORTED, "as reported"]
    return table(headers, rows, "recorded", kept, caption=caption)


def deeper_table(kept: Record, caption: str = "") -> Html:
    """The larger yardstick's differences beside those of the small one, and what was expected."""
    small, large = worths(kept, "without"), worths(kept, "deeper")
    lost = _lost(kept, "deeper")
    said = _said(large, lost)
    rows = list[list[Any]]()
    for key, title in _titles("deeper").items():
        shallow = f"{small[key].found.difference:+.4f}" if key in small else NOT_YET
        if worth := large.get(key):
            rows.append([title, shallow, f"{worth.found.difference:+.4f}", worth.found.interval])
            rows[-1] += [str(worth.found.seeds), said[key], expectations.DEEPER[key]]
        else:
            none = "" if key in lost else NOT_YET
            rows.append([title, shallow, none, "", "", said.get(key, ""), expectations.DEEPER[key]])
    depths = [f"depth {depth}" for depth in (YARDSTICK.depth, DEEPER)]
    headers = ["technique", *depths, "95% interval", "seeds", "verdict"]
    return table([*headers, "expected"], rows, "recorded", kept, caption=caption)


def deeper_picture(kept: Record, caption: str = "") -> Html:
    """The same techniques' differences at both depths, each with its interval."""
    titles, told = _titles("deeper"), list[str]()
    sides = ((YARDSTICK.depth, "without", "o", -0.15), (DEEPER, "deeper", "s", 0.15))
    with plotting(6.4, 1.2 + 0.42 * len(titles)) as (fig, axes):
        for colour, (depth, part, mark, beside) in zip(COLOURS, sides, strict=False):
            found = worths(kept, part)
            shown = [(row, found[key]) for row, key in enumerate(titles) if key in found]
            axes.errorbar(
                [worth.found.difference for _, worth in shown],
                [row + beside for row, _ in shown],
                xerr=[_margin(worth) for _, worth in shown],
                fmt=mark,
                color=colour,
                capsize=3,
                label=f"depth {depth}",
            )
            told += [f"at depth {depth} {_told(worth for _, worth in shown)}"]
        _name_rows(axes, [*titles.values()])
        legend(fig)
    return show(fig, f"Two points and intervals for each technique: {'. '.join(told)}.", caption)


def worth_picture(kept: Record, part: str, caption: str = "") -> Html:
    """Each technique's difference as a point with its interval; expected sizes as open circles."""
    found = list(worths(kept, part).values())
    with plotting(6.4, 0.9 + 0.34 * len(found)) as (fig, axes):
        for row, worth in enumerate(found):
            colour = COLOURS[{"-": 0, "+": 1}.get(worth.sign, 5)]
            axes.errorbar(
                worth.found.difference, row, xerr=_margin(worth), fmt="o", color=colour, capsize=3
            )
            if worth.expected.size is not None:
                axes.plot(worth.expected.size, row, "o", color=COLOURS[3], fillstyle="none")
        _name_rows(axes, [worth.title for worth in found])
    return show(fig, f"A point and an interval for each technique: {_told(found)}.", caption)


def _name_rows(axes: Any, titles: Sequence[str]) -> None:
    """A technique a row, the first on top, and the line of no difference."""
    axes.axvline(0, color=COLOURS[5], linewidth=1, linestyle="-")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)  # long titles leave little room
    axes.set_xlabel("bits per byte with it minus without (left: a gain)")


def _margin(worth: Worth) -> float:
    """Of the interval that is drawn: none where one seed has none."""
    return worth.found.margin if math.isfinite(worth.found.margin) else 0.0


def _told(found: Iterable[Worth]) -> str:
    """Differences and intervals for those who listen."""
    told = "; ".join(f"{w.title} {w.found.difference:+.4f} ({w.found.interval})" for w in found)
    return told or "none is recorded yet"


def progress(kept: Record) -> Html:
    """How far the record came, and how far apart seeds are."""
    results, noise = kept.results, list(kept.results["noise"].values())
    found = [
        claim("runs recorded", results["done"], "recorded", kept, form=","),
        claim("runs planned", results["planned"], "recorded", kept, form=","),
        claim("and runs of the search for rates", results["searched"], "recorded", kept, form=","),
        claim("hours of a core", kept.seconds / 3600, "recorded", kept, form=".1f"),
    ]
    if len(noise) > 1:
        found += [
            claim(
                f"the top over {len(noise)} seeds, bits per byte",
                f"{statistics.fmean(noise):.4f}, standard deviation {statistics.stdev(noise):.4f}",
                "recorded",
                kept,
            )
        ]
    return claims(*found)


def machines_table(kept: Record, caption: str = "") -> Html:
    """Runs that were made on more than one processor, and pairs of them: what rounding moves."""
    repeated = {(run["name"], run["seed"]): run for run in kept.results["repeated"]}
    machines = sorted({machine for run in repeated.values() for machine in run["bpb"]})
    rows = list[list[Any]]()

    def row(name: str, seed: int, bpb: Mapping[str, float], form: str) -> None:
        known = [bpb[machine] for machine in machines if machine in bpb]
        cells = [format(bpb[m], form) if m in bpb else "" for m in machines]
        rows.append([name, str(seed), *cells, f"{round(max(known) - min(known), 9):.1g}"])

    for (name, seed), run in repeated.items():
        row(name, seed, run["bpb"], ".4f")
    for (name, seed), run in repeated.items():
        base = repeated.get((run["against"], seed))
        shared = run["bpb"].keys() & base["bpb"].keys() if base else ()
        if base and len(shared) > 1:
            apart = {machine: run["bpb"][machine] - base["bpb"][machine] for machine in shared}
            row(f"{name} minus {base['name']}", seed, apart, "+.4f")
    headers = ["run", "seed", *(processors([machine]) for machine in machines), "apart"]
    return table(headers, rows, "recorded", kept, caption=caption)


def seeds_table(kept: Record) -> Html:
    """How many seeds an effect takes: of the yardstick in pairs, and as reported at scale."""
    deviations = [
        worth.found.deviation
        for worth in worths(kept, "without").values()
        if math.isfinite(worth.found.deviation)
    ]
    rows: list[list[Any]] = [
        ["CORE, two arms (reported)", "0.002", seeds_needed(0.002, SEEDS_CORE_SD, 2)],
        ["bits per byte, two arms (reported)", "0.0005", seeds_needed(0.0005, SEEDS_BPB_SD, 2)],
    ]
    if deviations:
        middle = statistics.median(deviations)
        rows += [
            ["bits per byte here, in pairs", f"{effect:g}", seeds_needed(effect, middle)]
            for effect in (0.01, 0.003, 0.001)
        ]
    return table(
        ["measure", "effect", "seeds an arm"],
        rows,
        [None, None, "recorded"],
        kept,
        caption="Seeds that show an effect in four of five tries",
    )


def sweep_table(kept: Record) -> Html:
    """Every rate that was tried, what it came to, and which was taken."""
    rows = []
    for name, settings in kept.results["sweep"].items():
        for setting, tried in settings.items():
            known = [(value, bpb) for value, bpb in tried if bpb is not None]
            taken = kept.configuration["tuned"].get(name, {}).get(setting, "")
            # nothing lies below zero
            edge = len(known) > 1 and taken and taken in (known[0][0], known[-1][0])
            listed = ", ".join(f"{_short(value)}: {bpb:.4f}" for value, bpb in known)
            rows.append([f"{name}, {setting}", _short(taken) + ", an edge" * bool(edge), listed])
    return table(["of", "taken", "bits per byte of each"], rows, "recorded", kept)


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
