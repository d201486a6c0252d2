"""Pictures of the chapter on CORE."""

from __future__ import annotations

import math
import re
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nanogpt2.evals.core.plain import plain_sequences
from nanogpt2.evals.core.statistics import centered
from nanogpt2.lab.drawing import PAINT, arrow, box, cells, drawing, show, words
from nanogpt2.lab.page import Html
from nanogpt2.reported import GPT2_CORE, SEEDS_CORE_SD
from nanogpt2.reporting.figures import COLOURS, plotting
from nanogpt2.studies.core.measures import certainty

ASKED: tuple[tuple[str, dict[str, Any], tuple[tuple[float, ...], ...], str], ...] = (
    (
        "multiple_choice",
        {"query": "The street is wet because", "choices": ["it rained.", "it is bread."]},
        ((1.5,), (3.0, 6.0)),
        "Multiple choice: the ending with the lower mean is taken",
    ),
    (
        "schema",
        {"context_options": ["The cup does not fit the box. The cup",
                             "The cup does not fit the box. The box"],
         "continuation": "is too large."},
        ((0.5, 1.0, 1.5), (0.5, 1.0, 2.7)),
        "Schema: the beginning under which the ending is likelier is taken",
    ),
    (
        "language_modeling",
        {"context": "The capital of France is", "continuation": "the city Paris."},
        ((),),
        "Language modeling: each of these must be the model's first choice",
    ),
)  # fmt: skip
"""kind, an item, losses of its scored tokens (made up), what is done with them"""
EXAMPLE = ((0.40, 0.25), (0.50, 0.50), (0.30, 0.00))
"""accuracy and chance of three tasks, which the chapter reckons with by hand"""


class Words:
    """A tokenizer whose tokens are words, so that a picture can show them."""

    bos_id = 0

    def __init__(self) -> None:
        self.known = ["<|bos|>"]

    def encode(self, text: str) -> list[int]:
        """Numbers of the words of ``text``, new ones learned."""
        found = re.findall(r"\S+", text)
        self.known += [word for word in dict.fromkeys(found) if word not in self.known]
        return [self.known.index(word) for word in found]


def three_kinds(caption: str = "") -> Html:
    """The chapter's idea: which tokens each kind of task scores, and how 22 tasks become one."""
    shown, told = [], []
    for kind, item, losses, rule in ASKED:
        tokenizer = Words()
        task = {"icl_task_type": kind, "num_fewshot": [0]}
        sequences, starts = plain_sequences(tokenizer, [item], 0, task)
        lines = []
        for sequence, start, each in zip(sequences, starts, losses, strict=True):
            named = [tokenizer.known[number] for number in sequence]
            lines.append(_tokens(named, start, each))
            mean = f", mean {np.mean(each):.1f}" if each else ""
            told.append(f"{' '.join(named[1:])}: scored is {' '.join(named[start:])}{mean}")
        shown.append(f"<p><strong>{escape(rule)}</strong><br>{'<br>'.join(lines)}</p>")
    drawn = [words(x, 20, name, "middle", 15)
             for x, name in ((46, "accuracy"), (140, "chance"), (262, "centered"))]  # fmt: skip
    for row, (accuracy, chance) in enumerate(EXAMPLE):
        y = 30 + 38 * row
        drawn += [cells(10, y, [[f"{accuracy:.2f}"]], 72, PAINT[1]),
                  cells(104, y, [[f"{chance:.2f}"]], 72), arrow((180, y + 15), (222, y + 15)),
                  cells(226, y, [[f"{centered(accuracy, chance):.2f}"]], 72, PAINT[0]),
                  arrow((302, y + 15), (340, 83))]  # fmt: skip
    core = np.mean([centered(*pair) for pair in EXAMPLE])
    drawn += [box(410, 83, 130, "their mean", f"{core:.3f}", PAINT[0]),
              words(10, 166, "three tasks here, 22 in CORE", size=15)]  # fmt: skip
    table = drawing(drawn, 176)
    alt = (
        f"{'. '.join(told)}. Below, accuracies of three tasks, chance taken out of each, and the "
        f"mean of what is left: {core:.3f}."
    )
    return show("".join(shown) + table, alt, caption)


def _tokens(named: list[str], start: int, losses: tuple[float, ...]) -> str:
    """Tokens as boxes, the scored ones filled, each with its loss; the mean behind them."""
    drawn = []
    for place, name in enumerate(named):
        loss = f" <small>{losses[place - start]:.1f}</small>" if place >= start and losses else ""
        kind = " ng-scored" if place >= start else ""
        drawn.append(f'<span class="ng-token{kind}">{escape(name)}{loss}</span>')
    mean = f" mean {np.mean(losses):.1f}" if losses else ""
    return "".join(drawn) + mean


def centering_frame(guessing: str, accuracy: float) -> tuple[Figure, str]:
    """An accuracy between chance and perfect, as a bar; a frame for ``explore``."""
    chance = {"1 of 4 options": 0.25, "1 of 2 options": 0.5, "exact text": 0.0}[guessing]
    value = centered(accuracy, chance)
    with plotting(height=1.7) as (fig, axes):
        axes.barh([0], [1.0], color="none", edgecolor=COLOURS[5], height=0.5)
        axes.barh([0], [accuracy], color=COLOURS[0], height=0.5)
        axes.axvline(chance, color=COLOURS[1], linestyle="-")
        axes.set(xlim=(0, 1), yticks=[], xlabel="accuracy", ylim=(-0.5, 0.5))
        axes.grid(False)
        axes.set_title(f"centered: {value:+.2f}")
    alt = f"Accuracy {accuracy:g} where guessing gives {chance:g}: centered accuracy {value:+.2f}."
    return fig, alt


def bootstrap_figure(values: np.ndarray, core: float) -> tuple[Figure, str]:
    """A histogram of ``bootstrap``."""
    with plotting(height=2.5) as (fig, axes):
        axes.hist(values, bins=40, color=COLOURS[0])
        axes.axvline(core, color=COLOURS[1], linestyle="-")
        axes.set(xlabel="CORE, with the examples drawn again", yticks=[])
    low, high = np.quantile(values, [0.025, 0.975])
    alt = (
        f"A bell-shaped histogram around {core:.3f}; 95 of 100 redrawn samples lie between "
        f"{low:.3f} and {high:.3f}."
    )
    return fig, alt


def seeds_frame(margin: float, seeds: int) -> tuple[Figure, str]:
    """What the mean of so many runs may come out as, beside GPT-2's score; for ``explore``."""
    error = SEEDS_CORE_SD / math.sqrt(seeds)
    x = np.linspace(GPT2_CORE - 0.015, GPT2_CORE + 0.03, 300)
    y = np.exp(-0.5 * ((x - GPT2_CORE - margin) / error) ** 2)
    above = certainty(margin, seeds, SEEDS_CORE_SD)
    with plotting(height=2.3) as (fig, axes):
        axes.plot(x, y)
        axes.fill_between(x, 0, y, where=x > GPT2_CORE, color=COLOURS[0], alpha=0.25)
        axes.axvline(GPT2_CORE, color=COLOURS[1], linestyle="-")
        axes.set(xlabel="CORE", yticks=[], ylim=(0, 1.15))
        axes.set_title(f"above GPT-2 with probability {above:.1%}")
    alt = (
        f"A model truly {margin:g} above GPT-2, mean of {seeds} runs: it comes out above GPT-2's "
        f"{GPT2_CORE} with probability {above:.1%}."
    )
    return fig, alt
