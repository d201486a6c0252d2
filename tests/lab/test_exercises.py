"""``check`` must tell right from wrong, and say what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nanogpt2 import lab


def double(x: Any) -> Any:
    return 2 * x


def unwritten(x: Any) -> Any:
    raise NotImplementedError


def broken(x: Any) -> Any:
    return x.nothing


def forgetful(x: Any) -> Any:
    2 * x


def test_a_right_function_passes() -> None:
    x = torch.randn(3, 2)
    cases = [((x,), 2 * x), ((3,), 6), ((1.5,), 3.0)]
    assert lab.check(double, cases)


@pytest.mark.parametrize(
    "function, said",
    [
        (unwritten, "`unwritten` is still to be written"),
        (broken, "stopped in its line"),
        (forgetful, "returned None"),
        (lambda x: x[:1] * 2, r"shape is \(1, 2\) and should be \(3, 2\)"),
        (lambda x: 2 * x + 1e-3, "numbers of 6|6 numbers"),
        (lambda x: x / 0, "infinite"),
        (lambda x: "six", "tensor was expected"),
    ],
)
def test_each_mistake_has_its_sentence(function: Any, said: str) -> None:
    x = torch.ones(3, 2)
    result = lab.check(function, [((x,), 2 * x)])
    assert not result
    assert __import__("re").search(said, result.message), result.message


@pytest.mark.parametrize(
    "result, expected, same",
    [
        ((1, 2.0), (1, 2.0), True),
        ((1, 2.0), (1, 2.5), False),
        ([1, 2, 3], (1, 2), False),
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"b": 1}, {"a": 1}, False),
        ("yes", "yes", True),
        (True, False, False),
        (math.nan, 1.0, False),
        ((torch.ones(2), "x"), (torch.ones(2), "x"), True),
        ((torch.ones(2), "x"), (torch.ones(2), "y"), False),
        (-math.inf, -math.inf, True),
        (0.0, -math.inf, False),
        (torch.tensor(1 + 1e-7), 1.0, True),
    ],
)
def test_values_of_every_kind_are_compared(result: Any, expected: Any, same: bool) -> None:
    assert bool(lab.check(lambda: result, [((), expected)])) == same


def test_a_judge_may_stand_in_for_a_value() -> None:
    def even(result: int) -> str:
        return "" if result % 2 == 0 else "it is odd."

    assert lab.check(lambda x: x, [((2,), even)])
    assert lab.check(lambda x: x, [((3,), even)]).message == "it is odd."


def test_cases_cannot_be_spoilt_by_writing_into_arguments() -> None:
    x = torch.ones(2)
    lab.check(lambda t: t.zero_(), [((x,), torch.zeros(2))])
    assert x.sum() == 2


def test_no_cases_prove_nothing() -> None:
    with pytest.raises(ValueError):
        lab.check(double, [])
