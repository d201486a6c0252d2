"""Questions a reader answers before reading on: ``predict`` keeps the answer, ``quiz`` marks it.

``case`` sells measurements between the reader's answer and the right one.

The choice stays in the reader's own browser (localStorage); nothing is sent anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html, inline, part, plain, rendered, script
from nanogpt2.reporting.figures import fresh_name

PREDICT, REVEAL = (script("choice", name) for name in ("predict", "reveal"))
QUIZ, CASE = script("quiz"), script("choice", "case")


class Prediction(Html):
    """A question the reader has committed to; ``reveal`` shows what the page found."""

    def __init__(self, html: str, text: str, key: str, choices: list[str]) -> None:
        super().__init__(html, text)
        self.key, self.choices = key, choices

    def reveal(self, answer: int | str, why: str) -> Html:
        """The measured ``answer`` beside the reader's own; hidden until one was given."""
        index = _index(answer, self.choices)
        body = rendered("reveal", answer=self.choices[index], why=why)
        text = f"Measured: {plain(self.choices[index])}. {plain(why)}"
        return Html(part("reveal", body, REVEAL, key=self.key, answer=index), text)


def predict(question: str, choices: Sequence[str]) -> Prediction:
    """A question to commit to; the page measures its answer, shown by ``Prediction.reveal``.

    Args:
        question: also the name under which the choice is kept.
        choices: two or more.
    """
    listed = _checked(question, choices)
    key, said = _key(question, listed), list(map(plain, listed))
    body = rendered("predict", name=fresh_name(), question=question, choices=listed)
    html = part("predict", body, PREDICT, key=key, choices=said)
    return Prediction(html, f"Predict: {plain(question)} ({' | '.join(said)})", key, listed)


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
    body = rendered("quiz", question=question, choices=listed, name=fresh_name())
    html = part("quiz", body, QUIZ, answer=index, whys=[inline(why) for why in whys])
    return Html(html, f"{plain(question)} ({' | '.join(map(plain, listed))})")


def case(
    question: str,
    choices: Sequence[str],
    answer: int | str,
    cause: str,
    menu: Sequence[tuple[str, int, str]],
) -> Html:
    """A riddle: commit to a diagnosis, buy measurements, keep it or change it, see the cause.

    Args:
        question: also the name under which choice and purchases are kept.
        cause: HTML, shown when the reader closes the case.
        menu: what can be bought: its name, its price in minutes, and its result as HTML.
    """
    listed = _checked(question, choices)
    index, shown = _index(answer, listed), {"question": question, "choices": listed}
    body = rendered("case", name=fresh_name(), answer=index, cause=cause, menu=menu, **shown)
    html = part("case", body, CASE, key=_key(question, listed), answer=index)
    bought = ", ".join(f"{name} ({price} min)" for name, price, _ in menu)
    return Html(html, f"{plain(question)} ({' | '.join(map(plain, listed))}); to buy: {bought}")


def _key(question: str, choices: list[str]) -> str:
    return "nanogpt2:" + hashlib.sha256("|".join([question, *choices]).encode()).hexdigest()[:16]


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
