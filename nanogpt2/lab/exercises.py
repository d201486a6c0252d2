"""``check``: the reader's function against a known one, with an answer that helps.

It never raises for the reader's mistakes: an unwritten exercise must not stop the notebook.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.lab.page import Html, inline, part


class Checked(Html):
    """True where the exercise is solved; shown as a sentence that says what is missing."""

    def __init__(self, passed: bool, message: str) -> None:
        word, kind = ("Solved.", "pass") if passed else ("Not yet.", "fail")
        body = f'<div class="ng-box ng-{kind}"><strong>{word}</strong> {inline(message)}</div>'
        super().__init__(part("check", body), f"{word} {message}")
        self.passed, self.message = passed, message

    def __bool__(self) -> bool:
        return self.passed


def check(
    function: Callable[..., Any],
    cases: Sequence[tuple[tuple[Any, ...], Any]],
    *,
    tolerance: float = 1e-5,
    hint: str = "",
    praise: str = "",
) -> Checked:
    """Call ``function`` on each case's arguments and compare with what is expected.

    Args:
        function: what the reader wrote.
        cases: (arguments, expected) pairs. Expected is a value (number, string, bool, tensor, array
            or a tuple, list or dict of them), or a function of the result that returns "" when
            it is right, else a sentence saying what is wrong.
        tolerance: greatest difference allowed, relative to the largest expected number, at least 1.
        hint: added to a message about wrong numbers.
        praise: what to notice once it is solved.
    """
    name = getattr(function, "__name__", "the function")
    if not cases:
        raise ValueError("a check without cases proves nothing")
    for number, (arguments, expected) in enumerate(cases, 1):
        where = f"Case {number} of {len(cases)}: " if len(cases) > 1 else ""
        try:
            result = function(*_fresh(arguments))
        except NotImplementedError:
            return Checked(False, f"`{name}` is still to be written.")
        except Exception as error:
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.name == name]
            line = f" in its line {lines[-1]}" if lines else ""
            return Checked(
                False, f"{where}`{name}` stopped{line} with {type(error).__name__}: {error}"
            )
        if result is None and expected is not None:
            return Checked(False, f"{where}`{name}` returned None. Is its `return` missing?")
        try:
            wrong = (
                expected(result)
                if callable(expected)
                else compare_values(result, expected, tolerance)
            )
        except Exception as error:  # the check itself tripped over an unexpected kind of result
            wrong = f"the result could not be judged ({type(error).__name__}: {error})."
        if wrong:
            return Checked(False, f"{where}{wrong}" + (f" Hint: {hint}" if hint else ""))
    return Checked(True, praise or f"`{name}` agrees in {_count(len(cases), 'case')}.")


def compare_values(result: Any, expected: Any, tolerance: float = 1e-5) -> str:
    """What is wrong with ``result``, in a sentence; "" where it is as expected."""
    if isinstance(expected, Mapping):
        if not isinstance(result, Mapping):
            return f"a dictionary was expected, not {_kind(result)}."
        for key in expected:
            if key not in result:
                return f"the key {key!r} is missing."
            if wrong := compare_values(result[key], expected[key], tolerance):
                return f"at {key!r}: {wrong}"
        return ""
    if isinstance(expected, (tuple, list)) and not _numeric(expected):
        if not isinstance(result, (tuple, list)) or len(result) != len(expected):
            return f"{_count(len(expected), 'value')} were expected, not {_kind(result)}."
        for i, (one, other) in enumerate(zip(result, expected, strict=True)):
            if wrong := compare_values(one, other, tolerance):
                return f"value {i + 1}: {wrong}"
        return ""
    if isinstance(expected, (str, bool)) or expected is None:
        return "" if result == expected else f"the result is {result!r}, not {expected!r}."
    return _compare_numbers(result, expected, tolerance)


def _compare_numbers(result: Any, expected: Any, tolerance: float) -> str:
    if isinstance(expected, Tensor) and not isinstance(result, Tensor):
        return f"a tensor was expected, not {_kind(result)}."
    try:
        got, want = _array(result), _array(expected)
    except (TypeError, ValueError):
        return f"numbers were expected, not {_kind(result)}."
    if got.shape != want.shape:
        return f"the shape is {got.shape} and should be {want.shape}."
    if got.size == 0:
        return ""
    if not np.isfinite(got[np.isfinite(want)]).all():
        return "some numbers are infinite or not numbers."
    with np.errstate(invalid="ignore"):
        off = np.nan_to_num(np.abs(got - want))
    largest = np.abs(np.nan_to_num(want, posinf=0, neginf=0)).max()
    allowed = tolerance * max(1.0, float(largest))
    if off.max() <= allowed:
        return ""
    at = np.unravel_index(int(off.argmax()), off.shape)
    place = f" at index {tuple(int(i) for i in at)}" if off.ndim else ""
    wrong = f"{_count(int((off > allowed).sum()), 'number')} of {off.size} " if off.ndim else ""
    return (
        f"{wrong or 'the number '}{'differ' if wrong else 'differs'}{place}: "
        f"{got[at]:.6g}, not {want[at]:.6g}."
    )


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().to(torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)


def _numeric(values: Sequence[Any]) -> bool:
    return bool(values) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    )


def _fresh(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies, so that a function that writes into its arguments cannot spoil the next case."""
    return tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in arguments)


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} ({str(value)[:40]})"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
