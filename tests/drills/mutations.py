"""Bytes with something wrong: bits flipped, ends cut, pieces moved, numbers and names absurd."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

ABSURD = ("-1", "0", "1e308", "NaN", "9223372036854775808", "1" * 5000, "null", "[]", '""', "true")
ABSURD += ("[" * 20_000, "x" * 200_000)
NAMES = ("../../outside", "/etc/passwd", "a\\u0000b", "\\ud800", "x" * 300)
VALUES = (None, True, -1, 0, 1 << 60, 10**400, 1e308, float("nan"), "", *NAMES, [], {}, [[1]])


def mutate(content: bytes, generator: random.Random) -> bytes:
    """``content`` with one to three things wrong."""
    for _ in range(generator.choice((1, 1, 2, 3))):
        content = generator.choice(MUTATIONS)(content, generator)
    return content


def _flip(content: bytes, g: random.Random) -> bytes:
    at = g.randrange(len(content) + 1)
    flipped = bytes(b ^ 1 << g.randrange(8) for b in content[at : at + 1])
    return content[:at] + flipped + content[at + 1 :]


def _cut(content: bytes, g: random.Random) -> bytes:
    return content[: g.randrange(len(content) + 1)]


def _splice(content: bytes, g: random.Random) -> bytes:
    a, b, at = sorted(g.randrange(len(content) + 1) for _ in range(3))
    return content[:at] + content[a:b] + content[at:]


def _drop(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + content[a + g.randint(1, 64) :]


def _noise(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + g.randbytes(g.randint(1, 16)) + content[a + 8 :]


def _replace(pattern: bytes, choices: tuple[str, ...]) -> Callable[[bytes, random.Random], bytes]:
    def change(content: bytes, g: random.Random) -> bytes:
        found = list(re.finditer(pattern, content[:100_000]))
        if not found:
            return content
        spot = g.choice(found)
        return content[: spot.start()] + g.choice(choices).encode() + content[spot.end() :]

    return change


def _alter_json(content: bytes, g: random.Random) -> bytes:
    """One value of a JSON file, or of a safetensors file's header, made absurd, lost or doubled."""
    start, stop = 0, len(content)
    if content[8:9] == b"{":
        start, stop = 8, 8 + int.from_bytes(content[:8], "little")
    try:
        whole = json.loads(content[start:stop])
        holders = [h for h in _holders(whole) if h]
    except (ValueError, RecursionError):
        return content
    if not holders:
        return content
    holder = g.choice(holders)
    key = g.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    change = g.randrange(4)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[g.choice(NAMES)] = holder[key]
    else:
        holder[key] = g.choice(VALUES)
    text = json.dumps(whole).encode()
    return (len(text).to_bytes(8, "little") if start else b"") + text + content[stop:]


def _holders(value: Any) -> Iterator[Any]:
    """Every list and dictionary in ``value``, itself included."""
    if isinstance(value, (list, dict)):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _cut,
    _splice,
    _drop,
    _noise,
    _replace(rb"-?\d+(\.\d+)?", ABSURD),
    _replace(rb'"[^"\n]{0,80}"', ABSURD),
    _replace(rb'(?<=")[^"\n]{1,80}(?=")', NAMES),
    _alter_json,
    _alter_json,
)
