"""Settings say at once when a value is of the wrong kind: it may come from a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nanogpt2.errors import UserError

_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def check_fields(owner: Any) -> None:
    """Raise UserError unless every field of a dataclass is of its annotated kind.

    Lists become tuples first, for JSON knows no tuples. A number must be finite; an int will do for
    a float, a bool for neither.
    """
    for name, hint in _hints(type(owner)).items():
        value = getattr(owner, name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(owner, name, value)
        if not _fits(value, hint):
            shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:60]}..."
            raise UserError(f"{name} is {shown}; it must be {_words(hint)}")


def check_range(owner: Any, names: str, least: float, below: float = math.inf) -> None:
    """Raise UserError unless the named fields (of a pair, both numbers) are in [least, below).

    ``names`` are separated by spaces; None is in every range.
    """
    for name in names.split():
        value = getattr(owner, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number < least:
                raise UserError(f"{name} is {number}; it must be at least {least}")
            if number is not None and number >= below:
                raise UserError(f"{name} is {number}; it must be less than {below}")


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(_fits(v, part) for v, part in zip(value, parts, strict=True))
        )
    if parts:  # a union
        return any(_fits(value, part) for part in parts)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 1e300 and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple:
        return f"{len(parts)} numbers"
    if parts:
        return " or ".join(map(_words, parts))
    if is_dataclass(hint):
        return "a group of settings"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return {NoneType: "nothing", **names}.get(hint, str(hint))
