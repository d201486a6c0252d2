from __future__ import annotations

import re

import pytest

from nanogpt2 import lab
from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html


def key(question: Html) -> str:
    found = re.search(r'data-key="([^"]+)"', question.html)
    assert found
    return found.group(1)


def test_the_key_is_the_question_and_nothing_else() -> None:
    one, again = (lab.predict("Which?", ["a", "b"]) for _ in range(2))
    assert key(one) == key(again) == key(one.reveal("a", "because"))
    assert key(one) != key(lab.predict("Which other?", ["a", "b"]))


def test_radio_groups_do_not_mix() -> None:
    names = [
        set(re.findall(r'name="([^"]+)"', lab.quiz("Q", ["a", "b"], 0, "w").html)) for _ in "12"
    ]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]


def test_text_is_escaped_and_marked_up() -> None:
    bet = lab.predict("Is `a < b` *really* so?", ["<b>", "no"])
    html = bet.html + bet.reveal(1, "since a & b").html
    assert "<code>a &lt; b</code> <em>really</em>" in html
    assert "&lt;b&gt;" in html and "<b>" not in html and "a &amp; b" in html


@pytest.mark.parametrize("choices, answer", [(["a"], 0), (["a", "a"], 0), (["a", "b"], "c")])
def test_impossible_questions_are_refused(choices: list[str], answer: int | str) -> None:
    with pytest.raises(UserError):
        lab.predict("Q", choices).reveal(answer, "why")


def test_a_quiz_explains_every_choice() -> None:
    with pytest.raises(UserError, match="says nothing about 'b'"):
        lab.quiz("Q", ["a", "b"], "a", {"a": "yes"})
