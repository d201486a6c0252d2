"""What ``--data`` names: shards as they lie, text to be made into shards, or a mixture by weights.

A mixture is a folder with ``mixture.json``: where the shards of each source lie and its weight, and
held-out text of all of them by the same weights. ``loader`` reads it. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nanogpt2.data.dealing import furthest_behind
from nanogpt2.data.prepare import identity_of, prepare
from nanogpt2.data.shards import MIXTURE, find_shards, open_shard, read_documents, write_shard
from nanogpt2.errors import UserError
from nanogpt2.files import atomic_directory, write_json

MEASURED = 40_000_000
"""characters of held-out text in a mixture, at most"""


class Part(NamedTuple):
    """A source and its weight; None: it has none, and all sources are one text."""

    path: Path
    weight: float | None

    def __str__(self) -> str:
        place = str(self.path.resolve())
        return place if self.weight is None else f"{place}:{self.weight!r}"


def parts_of(names: Sequence[str]) -> list[Part]:
    """The sources named as ``PATH`` or ``PATH:WEIGHT``; weights sum to 1 then.

    Raises UserError where a source does not exist, or only some have weights.
    """
    parts = [_part(name) for name in names]
    weighted = [part for part in parts if part.weight is not None]
    if weighted and len(weighted) < len(parts):
        bare = next(part.path for part in parts if part.weight is None)
        raise UserError(f"{bare} has no weight and others do; write {bare}:0.5, say")
    total = sum(part.weight or 0 for part in parts)
    return [Part(p.path, None if p.weight is None else p.weight / total) for p in parts]


def _part(name: str) -> Part:
    path, colon, number = name.rpartition(":")
    if Path(name).exists() or not colon:
        if not Path(name).exists():
            raise UserError(f"--data {name}: there is no such file or folder")
        return Part(Path(name), None)
    try:
        weight = float(number)
    except ValueError:
        raise UserError(f"--data {name}: there is no such file or folder") from None
    if not 0 < weight < 1e9:
        raise UserError(f"--data {name}: the weight is {number}; it must be positive")
    if not Path(path).exists():
        raise UserError(f"--data {path}: there is no such file or folder")
    return Part(Path(path), weight)


def is_ready(path: Path) -> bool:
    """Whether ``path`` is a folder of shards that can be trained on as it lies."""
    try:
        return path.is_dir() and all(map(open_shard, find_shards(path).files))
    except UserError:
        return False


def wanted(names: Sequence[str]) -> str:
    """A digest of what ``lay_out`` would make."""
    parts = parts_of(names)
    if parts[0].weight is None:
        return identity_of([part.path for part in parts])
    values = [
        [part.weight, str(part.path.resolve()) if is_ready(part.path) else identity_of([part.path])]
        for part in parts
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def lay_out(
    names: Sequence[str],
    out: Path,
    told: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    check: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Make of the sources a folder of shards, or of a mixture of them.

    Sources of a mixture that are no shards are prepared beside it (``out-0``, ``out-1``, ...).
    ``check`` sees a finished mixture before it is put in place, and may refuse it.
    """
    parts = parts_of(names)
    if parts[0].weight is None:
        for line in prepare([part.path for part in parts], out, told=told).describe():
            say(f"  {line}")
        return
    folders = []
    for n, part in enumerate(parts):
        folder = part.path.resolve()
        if not is_ready(folder):
            folder = out.absolute().with_name(f"{out.name}-{n}")
            say(f"  {part.path}:")
            for line in prepare([part.path], folder, told=told).describe():
                say(f"  {line}")
        folders.append(folder)
    weights = [part.weight or 0.0 for part in parts]
    with atomic_directory(out, *folders) as temporary:
        streams = [_held_out(folder) for folder in folders]
        write_shard(temporary / "validation.parquet", _until(MEASURED, in_turn(streams, weights)))
        sources = [
            {"folder": str(folder), "weight": weight}
            for folder, weight in zip(folders, weights, strict=True)
        ]
        write_json(temporary / MIXTURE, {"sources": sources, "identity": wanted(names)})
        check(temporary)


def _held_out(folder: Path) -> Iterator[tuple[str, int]]:
    for path in find_shards(folder).held_out:
        yield from ((text, len(text)) for text in read_documents(path))


def _until(limit: int, items: Iterable[tuple[str, int]]) -> Iterator[str]:
    for text, _ in items:
        yield text
        limit -= len(text)
        if limit <= 0:
            return


def in_turn(
    streams: Sequence[Iterator[tuple[str, int]]], weights: Sequence[float]
) -> Iterator[tuple[str, int]]:
    """Items of sizes, so that each stream gives its share of the size; ends with the first."""
    given = [0] * len(streams)
    while True:
        n = furthest_behind(given, weights)
        item = next(streams[n], None)
        if item is None:
            return
        given[n] += item[1]
        yield item
