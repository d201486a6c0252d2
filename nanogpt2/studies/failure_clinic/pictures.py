"""What the clinic shows: a case from outside, its box, and the signatures of all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.lab.claims import claims, table
from nanogpt2.lab.drawing import PAINT, arrow, box, circle, opening, path, show, words
from nanogpt2.lab.page import Html, inline
from nanogpt2.lab.questions import case as case_box
from nanogpt2.reporting.figures import COLOURS, legend, plotting, svg
from nanogpt2.studies.failure_clinic.cases import CAUSES, SEEDS, Patient
from nanogpt2.studies.failure_clinic.measures import MENU, PROMPT, Measurement
from nanogpt2.studies.failure_clinic.runs import Training, train
from nanogpt2.studies.failure_clinic.signs import LIT, distance

STATIONS = (
    ("rows of tokens", "in order? new? whole?"),
    ("model: logits", "who sees whom?"),
    ("loss", "of which target?"),
    ("gradients, averaged", "how long?"),
    ("optimizer", "whom does it move?"),
    ("rate of this step", "for which batch and length?"),
    ("checkpoint, and back", "all of it?"),
)


def ward(caption: str = "") -> Html:
    """The drawing that opens the chapter: the stations of a training and what to ask at each."""
    body = []
    for i, (name, asked) in enumerate(STATIONS):
        y = 28 + 62 * i
        body += [
            box(115, y, 198, name),
            circle(234, y, 13, stroke=PAINT[1]),
            words(234, y + 5.5, "?", "middle", fill=PAINT[1]),
            words(256, y + 5, asked, size=15),
        ]
        if i + 1 < len(STATIONS):
            body.append(arrow((115, y + 20), (115, y + 42)))
    last = 28 + 62 * (len(STATIONS) - 1)
    body.append(arrow((16, last), (6, last), (6, 28), (15, 28)))
    told = "; ".join(f"{name}: {asked}" for name, asked in STATIONS)
    alt = f"The stations of a training below each other, a question beside each. {told}"
    return opening(body, last + 28, alt, caption)


def sight(patient: Patient) -> Html:
    """What one sees of a case before anything is measured."""
    return claims(*(SIGHTS[name](patient) for name in patient.case.sight))


def _loss(patient: Patient) -> Html:
    run, well = patient.training, patient.healthy
    told = _ends(patient)
    return show(_loss_figure(run, well), f"Case {patient.number}, the loss over the steps. {told}",
                "Training loss of every step, and held-out loss as dots, in nats per token; "
                "dotted: a healthy training.")  # fmt: skip


def _ends(patient: Patient) -> str:
    run, well = patient.training, patient.healthy
    return (
        f"This training ends at {run.end('loss'):.2f}, on held-out text at "
        f"{run.held_out[-1][1]:.2f}; a healthy one at {well.end('loss'):.2f}."
    )


def _loss_figure(run: Training, well: Training) -> Figure:
    with plotting(height=2.7) as (fig, axes):
        axes.plot(well.series("loss"), ":", color=COLOURS[5], label="healthy")
        axes.plot(run.series("loss"), "-", color=COLOURS[0], label="training")
        held = [*zip(*run.held_out, strict=True)]
        axes.plot(*held, "o", color=COLOURS[1], markersize=4, label="held out")
        axes.set(xlabel="step", ylabel="nats per token")
        axes.set_ylim(0, min(14, 1.05 * max(*run.series("loss"), *held[1])))
        legend(fig)
    return fig


def _norm(patient: Patient) -> Html:
    with plotting(height=2.2) as (fig, axes):
        pairs = (("healthy", patient.healthy, ":", 5), ("this training", patient.training, "-", 0))
        for name, run, dash, colour in pairs:
            axes.plot(run.series("norm"), dash, color=COLOURS[colour], label=name)
        axes.set(xlabel="step", ylabel="norm of the gradient", yscale="log")
        axes.set_yticks((0.1, 0.3, 1, 3, 10, 30), ("0.1", "0.3", "1", "3", "10", "30"))
        axes.minorticks_off()
        axes.set_ylim(0.2, 40)
        legend(fig)
    here, well = patient.training.series("norm"), patient.healthy.series("norm")
    alt = f"Case {patient.number}, the norm of the gradient: {min(here):.2g} to {max(here):.2g}."
    told = (
        f"The norm of the first step's gradient is {here[0]:.3f}; the healthy one's {well[0]:.3f}."
    )
    return show(fig, alt, told)


def _log(patient: Patient) -> Html:
    run, well = patient.training.log, patient.healthy.log
    at = [round(i * (len(run) - 1) / 5) for i in range(6)]
    rows = [[f"{run[i]['step']}", run[i]["loss"], well[i]["loss"]] for i in at]
    headers = ["step", "loss", "loss, healthy"]
    return table(headers, rows, form=".4f", caption=f"Case {patient.number}, from the log")


def _seeds(patient: Patient) -> Html:
    here, well = patient.training, patient.healthy
    twins = [train(well.setting, len(well.log), well.seed + i) for i in range(SEEDS)]
    named = [("this training", here), *((f"healthy, seed {twin.seed}", twin) for twin in twins)]
    rows = [[name, run.end("loss"), run.held_out[-1][1]] for name, run in named]
    headers = ["", "loss, last steps", "held out"]
    return table(
        headers, rows, form=".3f", caption=f"Case {patient.number} and three healthy seeds"
    )


def _sample(patient: Patient) -> Html:
    rows = [["this training", patient.sample], ["a healthy one", patient.healthy_sample]]
    return table(["", f"after “{PROMPT}”"], rows, caption=f"Case {patient.number}, what it writes")


SIGHTS = {"loss": _loss, "norm": _norm, "log": _log, "seeds": _seeds, "sample": _sample}


def riddle(patient: Patient) -> Html:
    """The box of a case: suspects, measurements to buy, and the cause with its line."""
    case = patient.case
    menu = [
        (m.name, m.minutes, f"{patient.here[key]:{m.form}}; a healthy training: "
                            f"{patient.well[key]:{m.form}}.")
        for key, m in MENU.items()
    ]  # fmt: skip
    cause = f"<p>{inline(case.why)}</p>"
    if case.flip:
        told = " or ".join(f"{m.name} ({m.minutes} min)" for m in witnesses(patient))
        alt = f"With the line and without it. {_ends(patient)}"
        cause += (
            f"<p>What tells: {escape(told)}.</p>"
            f'<pre class="ng-diff">{escape(case.flip.diff())}</pre>'
            f"<figure>{svg(_loss_figure(patient.training, patient.healthy), alt)}<figcaption>The "
            "same training twice: with the line marked + and with the one marked −.</figcaption>"
            "</figure>"
        )
    suspects = [CAUSES[key] for key in case.suspects]
    asked = f"Case {patient.number}: what is wrong?"
    return case_box(asked, suspects, CAUSES[case.key], cause, menu)


def signature_matrix(
    found: dict[str, list[float]], patients: Sequence[Patient], caption: str = ""
) -> Html:
    """Every sign against every case: the larger a dot, the further from health."""
    left, step = 258, 20
    drawn = []
    for row, (sign, distances) in enumerate(found.items()):
        y = 40 + 24 * row
        drawn += [words(left - 6, y + 5, sign, "end", 13),
                  path(f"M{left} {y}H{left + step * len(distances)}", opacity=".15")]  # fmt: skip
        for column, far in enumerate(distances):
            x = left + step * (column + 0.5)
            tells = sign in {m.name for m in witnesses(patients[column])}
            r = min(9.0, 3 * math.log10(max(1.0, far)) + (1.5 if far > LIT else 0))
            if far > LIT:
                drawn.append(circle(x, y, r, fill=PAINT[1 if tells else 0], stroke="none"))
            if tells:
                drawn.append(circle(x, y, 10.4, stroke=PAINT[1], stroke_width="2"))
    for column, patient in enumerate(patients):
        drawn.append(words(left + step * (column + 0.5), 20, f"{patient.number}", "middle", 13))
    lit = [sum(distances[i] > LIT for distances in found.values()) for i in range(len(patients))]
    alt = (
        f"A matrix of {len(found)} signs by {len(patients)} cases. Signs that stand out, case by "
        f"case: {', '.join(map(str, lit))}. The ringed ones tell."
    )
    return opening(drawn, 40 + 24 * len(found), alt, caption)


def witnesses(patient: Patient) -> list[Measurement]:
    """The measurements that tell; a second one may need a longer run than this."""
    here, well, keys = patient.here, patient.well, patient.case.tells
    return [MENU[key] for key in keys if distance(here[key], well[key], 0.0) > LIT]


def summary(patients: Sequence[Patient]) -> list[list[Any]]:
    """Rows: case, symptom, the measurement that tells, cause."""
    return [
        [
            f"{p.number}",
            symptom(p),
            " or ".join(m.name for m in witnesses(p)) or "none",
            CAUSES[p.case.key],
        ]
        for p in patients
    ]


def symptom(patient: Patient) -> str:
    """What the curves say, in a few words, read off the runs."""
    run, well = patient.training, patient.healthy
    loss, held, right = run.end("loss"), run.held_out[-1][1], well.end("loss")
    losses = run.series("loss")
    lowest = min(statistics.fmean(losses[max(0, i - 4) : i + 1]) for i in range(len(losses)))
    if held > loss + 0.5 and loss < right - 0.3:
        return "training loss falls, held-out loss rises"
    if loss > lowest + 0.5:
        return "the loss turns and climbs"
    if loss < right - 1:
        return "both losses too good to be true"
    half = len(run.log) // 2
    if run.log[half]["loss"] > run.log[half - 1]["loss"] + 0.5:
        return "a leap at the resume"
    if loss > right + 0.1:
        return "rough, and worse throughout"
    return "none in the loss"
