"""What ``--data`` names: shards as they lie, text to be made into shards, or a mixture by weights.

A mixture is a folder with ``mixture.json``: where the shards of each source lie and its weight, and
held-out text of all of them by the same weights. ``loader`` reads it. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nanogpt2.data.dealing import furthest_behind
from nanogpt2.data.prepare import SUMMARY, identity_of, prepare
from nanogpt2.data.shards import MIXTURE, find_shards, open_shard, read_documents, write_shard
from nanogpt2.data.source import Text, shard_digest
from nanogpt2.errors import UserError
from nanogpt2.files import atomic_directory, read_json, write_json

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
    part, (path, _, number) = Part(Path(name), None), name.rpartition(":")
    if not part.path.exists():
        with suppress(ValueError):
            part = Part(Path(path), float(number))
    if not part.path.exists():
        raise UserError(f"--data {name}: there is no such file or folder")
    if part.weight is not None and not 0 < part.weight < 1e9:
        raise UserError(f"--data {name}: the weight is {number}; it must be positive")
    return part


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
            folder = out.absolute().with_name(_beside(out, n))
            say(f"  {part.path}:")
            for line in prepare([part.path], folder, told=told).describe():
                say(f"  {line}")
        folders.append(folder)
    weights = [part.weight or 0.0 for part in parts]
    with atomic_directory(out, *folders) as temporary:
        held_out = (find_shards(folder).held_out for folder in folders)
        streams = [chain.from_iterable(map(read_documents, paths)) for paths in held_out]
        write_shard(temporary / "validation.parquet", _in_turn(streams, weights))
        _write(temporary / MIXTURE, out, folders, parts, wanted(names))
        check(temporary)


def _beside(out: Path, n: int) -> str:
    """Name of the folder beside a mixture that holds what was made of source ``n``."""
    return f"{out.name}-{n}"


def _write(
    path: Path, out: Path, folders: Sequence[Path], parts: Sequence[Part], identity: str
) -> None:
    """``mixture.json``; what was made beside the mixture is told from there, and moves with it."""
    own = {out.absolute().with_name(_beside(out, n)): n for n in range(len(parts))}
    sources = [
        {
            "folder": f"../{_beside(out, own[folder])}" if folder in own else str(folder),
            "weight": part.weight,
        }
        for folder, part in zip(folders, parts, strict=True)
    ]
    write_json(path, {"sources": sources, "identity": identity})


def follow(out: Path, names: Sequence[str], began: Text) -> bool:
    """Whether ``names`` are the sources of the mixture in ``out``, of which a run ``began`` to
    learn, wherever they lie by now; from there they are read then."""
    parts, folders = parts_of(names), list[Path]()
    if tuple(part.weight for part in parts) != began.weights:
        return False
    for n, part in enumerate(parts):
        folder, made = part.path.resolve(), out.absolute().with_name(_beside(out, n))
        if not is_ready(folder):
            summary = read_json(made / SUMMARY) if (made / SUMMARY).is_file() else {}
            if summary.get("identity") != identity_of([folder]):
                return False
            folder = made
        its_own = [s.digest for s, of in zip(began.train, began.sources, strict=True) if of == n]
        if [shard_digest(path) for path in find_shards(folder).train] != its_own:
            return False
        folders.append(folder)
    _write(out / MIXTURE, out, folders, parts, wanted(names))
    return True


def _in_turn(streams: Sequence[Iterator[str]], weights: Sequence[float]) -> Iterator[str]:
    """Texts, of which each stream gives its share of the characters; ends with the first stream."""
    given = [0] * len(streams)
    while sum(given) < MEASURED:
        n = furthest_behind(given, weights)
        text = next(streams[n], None)
        if text is None:
            return
        given[n] += len(text)
        yield text
