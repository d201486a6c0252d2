"""Questions a reader answers before reading on: ``predict`` keeps the answer, ``quiz`` marks it.

The choice stays in the reader's own browser (localStorage); nothing is sent anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape

from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html, fresh_name, inline, part, plain, script

PREDICT, REVEAL = (script("choice", name) for name in ("predict", "reveal"))
QUIZ = script("quiz")


class Prediction(Html):
    """A question the reader has committed to; ``reveal`` shows what the page found."""

    def __init__(self, html: str, text: str, key: str, choices: list[str]) -> None:
        super().__init__(html, text)
        self.key, self.choices = key, choices

    def reveal(self, answer: int | str, why: str) -> Html:
        """The measured ``answer`` beside the reader's own; hidden until one was given."""
        index = _index(answer, self.choices)
        body = (
            '<div class="ng-box"><p class="ng-said" aria-live="polite"></p>'
            '<button type="button">Show the answer all the same</button>'
            f'<div class="ng-after" hidden><p><strong>Measured: '
            f"{inline(self.choices[index])}.</strong> {inline(why)}</p></div></div>"
        )
        attributes = f'data-key="{self.key}" data-answer="{index}"'
        text = f"Measured: {plain(self.choices[index])}. {plain(why)}"
        return Html(part("reveal", body, REVEAL, attributes), text)


def predict(
    question: str, choices: Sequence[str], answer: int | str | None = None, why: str = ""
) -> Prediction:
    """A question whose answer stays hidden until the reader commits to a choice.

    Args:
        question: also the name under which the choice is kept.
        choices: two or more.
        answer: the right choice, or its index. None: the page measures it later and shows it with
            ``Prediction.reveal``.
        why: what explains the answer, shown with it.
    """
    listed = _checked(question, choices)
    index = "" if answer is None else str(_index(answer, listed))
    key = "nanogpt2:" + hashlib.sha256("|".join([question, *listed]).encode()).hexdigest()[:16]
    shown = ""
    if answer is not None:
        shown = f"<p><strong>{inline(listed[int(index)])}.</strong> {inline(why)}</p>"
    body = (
        f'<div class="ng-box"><fieldset><legend>Predict: {inline(question)}</legend>'
        f"{_radios(listed)}</fieldset>"
        '<button type="button" class="ng-commit" disabled>Commit to this answer</button>'
        '<div class="ng-after" aria-live="polite" hidden>'
        f'<p class="ng-said"></p>{shown}</div>'
        '<button type="button" class="ng-again" hidden>Choose again</button></div>'
    )
    words = escape(json.dumps([plain(choice) for choice in listed]), quote=True)
    attributes = f'data-key="{key}" data-answer="{index}" data-choices="{words}"'
    text = f"Predict: {plain(question)} ({' | '.join(map(plain, listed))})"
    return Prediction(part("predict", body, PREDICT, attributes), text, key, listed)


def quiz(
    question: str, choices: Sequence[str], answer: int | str, why: str | Mapping[str, str]
) -> Html:
    """A question marked at once, as often as the reader likes.

    ``why`` explains the answer, or maps each choice to what is right or wrong with it.
    """
    listed = _checked(question, choices)
    index = _index(answer, listed)
    if isinstance(why, str):
        whys = [why if i == index else "Try another." for i in range(len(listed))]
    else:
        missing = [choice for choice in listed if choice not in why]
        if missing:
            raise UserError(f"the quiz says nothing about {missing[0]!r}; explain every choice")
        whys = [why[choice] for choice in listed]
    body = (
        f'<div class="ng-box"><fieldset><legend>{inline(question)}</legend>'
        f'{_radios(listed)}</fieldset><button type="button">Check</button>'
        '<p class="ng-said" aria-live="polite"></p></div>'
    )
    told = escape(json.dumps([inline(why) for why in whys]), quote=True)
    attributes = f'data-answer="{index}" data-whys="{told}"'
    text = f"{plain(question)} ({' | '.join(map(plain, listed))})"
    return Html(part("quiz", body, QUIZ, attributes), text)


def _checked(question: str, choices: Sequence[str]) -> list[str]:
    listed = list(choices)
    if len(listed) < 2 or len(set(listed)) < len(listed):
        raise UserError(f"{question!r} needs two or more choices, all different; got {listed}")
    return listed


def _index(answer: int | str, choices: list[str]) -> int:
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return answer
    raise UserError(f"the answer {answer!r} is none of the choices {choices}")


def _radios(choices: list[str]) -> str:
    name = fresh_name()
    return "".join(
        f'<label class="ng-choice"><input type="radio" name="{name}" value="{i}" '
        f'autocomplete="off"><span>{inline(choice)}</span></label>'
        for i, choice in enumerate(choices)
    )
