"""Settings that check themselves: strict dataclasses, read from JSON and from ``--set``.

A range stands in a field's annotation (``lr: Scale``); pydantic reads it. Whoever breaks it gets
one sentence: the name, the value, and what it must be. Chapter: speedrun.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from nanogpt2.errors import UserError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""an int will do for a float, a bool for neither; text is no number; every number is finite"""
LONGEST = 60
"""characters that a sentence shows of a wrong value"""


def _pair(value: Any) -> Any:
    """JSON has no tuples, and ``--set`` writes one as 0.9,0.99."""
    if isinstance(value, str):
        return tuple(float(part) for part in value.strip("()[] ").split(","))
    return tuple(value) if isinstance(value, list) else value


Count = Annotated[int, Field(ge=1, lt=2**62)]
Natural = Annotated[int, Field(ge=0, lt=2**62)]
# what fp32 holds, with room for its products
Number = Annotated[float, Field(gt=-1e36, lt=1e36)]
Scale = Annotated[float, Field(ge=0, lt=1e36)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""of a running average: below 1, or it would never move"""
Numbers = Annotated[tuple[Number, Number], BeforeValidator(_pair)]
Decays = Annotated[tuple[Decay, Decay], BeforeValidator(_pair)]
Place = Annotated[Path, Field(strict=False)]
"""a path, or its name"""

_hints: Callable[[Any], dict[str, Any]] = cache(partial(get_type_hints, include_extras=True))
_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[_T]) -> type[_T]:
    """Make of ``cls`` a frozen dataclass that raises UserError for a value that does not fit."""
    made: Any = dataclass(frozen=True, config=STRICT)(cls)
    check = made.__init__

    @wraps(check)
    def __init__(self: Any, *values: Any, **named: Any) -> None:
        try:
            check(self, *values, **named)
        except ValidationError as error:
            raise _mistake(error, cls) from None

    made.__init__ = __init__
    checked: type[_T] = made
    return checked


def from_dict(cls: type[_T], values: Any, what: str) -> _T:
    """The settings that ``dataclasses.asdict`` made plain, perhaps by way of JSON.

    Raises UserError where ``what`` they are lacks a name, has one too many, or a wrong value.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{what} is not a group of names and values")
    try:
        made: _T = cls.__pydantic_validator__.validate_json(json.dumps(values))  # type: ignore[attr-defined]
    except ValidationError as error:
        raise UserError(
            f"{what} does not fit ({_mistake(error, cls)}); "
            "it was written by another version of nanogpt2, or by hand"
        ) from None
    return made


def override(thing: _T, assignments: Mapping[str, str]) -> _T:
    """``thing`` with fields set from text, as ``--set name=value`` gives them.

    A name is a field (``ratio``), a field of a group (``muon.lr``, ``wte.betas=0.9,0.99``), or a
    field of a group in ``BARE`` (``rope_base`` for ``model.rope_base``). Raises UserError for a
    name or a value that does not fit.
    """
    for name, text in assignments.items():
        thing = _set(thing, _path(type(thing), name), text, name)
    return thing


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted name, value) of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(owner: Any, path: tuple[str, ...], text: str, name: str) -> Any:
    first, *rest = path
    if rest:
        value = _set(getattr(owner, first), tuple(rest), text, name)
    else:
        value = _read(_hints(type(owner))[first], text.strip(), name)
    return dataclasses.replace(owner, **{first: value})


def _read(hint: Any, text: str, name: str) -> Any:
    """``text`` as a value of the annotated kind."""
    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=STRICT)
    if text.lower() == "none":
        try:
            return adapter.validate_python(None)
        except ValidationError:
            pass  # it is to be had by no such name
    try:
        return adapter.validate_strings(text)
    except ValidationError as error:
        raise UserError(_sentence(name, error.errors())) from None


def _names(cls: Any) -> dict[str, tuple[str, ...] | str]:
    """Every name of a setting: the fields that lead to it, or why it cannot be set."""
    own: dict[str, tuple[str, ...] | str] = {}
    bare: dict[str, tuple[str, ...] | str] = {}
    for field in dataclasses.fields(cls):
        kind = _hints(cls)[field.name]
        if not dataclasses.is_dataclass(kind):
            own[field.name] = (field.name,)
            continue
        inner = {
            name: path if isinstance(path, str) else (field.name, *path)
            for name, path in _names(kind).items()
        }
        own |= {f"{field.name}.{name}": path for name, path in inner.items()}
        if field.name in getattr(cls, "BARE", ()):
            bare |= inner
    aliases = {alias: (name,) for alias, name in getattr(cls, "ALIASES", {}).items()}
    return own | bare | aliases | getattr(cls, "CLOSED", {})


def _path(cls: type, name: str) -> tuple[str, ...]:
    """The fields that lead to ``name``; UserError says what is wrong with it."""
    names = _names(cls)
    path = names.get(name)
    if isinstance(path, tuple):
        return path
    if isinstance(path, str):
        raise UserError(f"{name} {path}")
    names = {known: path for known, path in names.items() if isinstance(path, tuple)}
    head = name.rpartition(".")[0]
    close = difflib.get_close_matches(name, names, 1)
    group = [known.rpartition(".")[2] for known in names if known.startswith(f"{head or name}.")]
    if group:
        hint = f"{head or name} has {', '.join(group)}"
    elif head in names:
        hint = f"{head} is a plain value"
    elif close:
        hint = f"did you mean {close[0]}?"
    else:
        hint = "see nanogpt2/recipes.py for them all"
    raise UserError(f"there is no setting {name!r}; {hint}")


# From pydantic's errors to a sentence

PAIR = "two numbers with a comma between them"
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "the name of a file or folder",
    "dataclass": "a group of settings",
    **dict.fromkeys(("tuple", "too", "value", "missing"), PAIR),
}
"""what must be, by the first word of an error's type"""
LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}


def _mistake(error: ValidationError, cls: Any) -> UserError:
    """The first thing that is wrong with a whole group of settings."""
    first, *more = error.errors()
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, UserError):  # by a check of several fields
        return raised
    names: list[str] = []
    for part in first["loc"]:
        if not dataclasses.is_dataclass(cls):
            break
        if isinstance(part, int):  # given by its place
            part = [*_hints(cls), *("a value too many",) * (part + 1)][part]
        names.append(part)
        cls = _hints(cls).get(part)
    name = ".".join(names)
    if first["type"] == "unexpected_keyword_argument":
        return UserError(f"there is no setting {name!r}")
    if first["type"] == "missing" and len(names) == len(first["loc"]):
        return UserError(f"{name} is missing")
    same = [e for e in more if e["loc"][: len(names)] == first["loc"][: len(names)]]
    return UserError(_sentence(name, [first, *same]))


def _sentence(name: str, errors: Sequence[Any]) -> str:
    """One sentence of what is wrong with a value; of a union there is an error for each kind."""
    kind, value = errors[0]["type"], errors[0]["input"]
    shown = str(value) if kind in (*LIMITS, "finite_number") else repr(value)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
    must = "choose one of" if kind == "literal_error" else "it must be"
    return f"{name} is {shown}; {must} {' or '.join(dict.fromkeys(map(_words, errors)))}"


def _words(error: Any) -> str:
    kind = error["type"]
    if kind == "literal_error":
        return ", ".join(re.findall("'(.*?)'", error["ctx"]["expected"]))
    if kind in LIMITS:
        words, key = LIMITS[kind]
        limit = str(error["ctx"][key]).removesuffix(".0")
        return "positive" if (key, limit) == ("gt", "0") else f"{words} {limit}"
    return WORDS.get(kind.partition("_")[0], error["msg"])
