"""Which text a run learns from and is measured on, told by digests of its shards.

A run goes on with the text it began with, wherever that lies by now, and reads the shards in the
order in which it began; more shards may join it when the user says so. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from nanogpt2.data.shards import find_shards, split_named
from nanogpt2.errors import UserError
from nanogpt2.files import sha256_of
from nanogpt2.settings import from_dict, settings

WHOLE = 64 * 2**20
EDGE = 2**20


def shard_digest(path: Path) -> str:
    """SHA-256 of a shard; of one over 64 MiB its size, first and last MiB.

    The end of a parquet file says where each of its columns lies and how long it is, so that an
    edited file differs there too; a run need not read a terabyte before its first step.
    """
    size = path.stat().st_size
    if size <= WHOLE:
        return sha256_of(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(EDGE))
        file.seek(-EDGE, 2)
        digest.update(file.read())
    return digest.hexdigest()


class Shard(NamedTuple):
    """A file of documents: its path within the data folder, and its digest."""

    name: str
    digest: str


@settings
class Text:
    """The shards of a run: to learn from, in the order in which they are read, and held out."""

    train: tuple[Shard, ...]
    held_out: tuple[Shard, ...]
    weights: tuple[float, ...] = ()
    """of the sources of a mixture"""
    sources: tuple[int, ...] = ()
    """of a mixture: which source each shard to learn from is of"""

    @classmethod
    def of(cls, folder: Path | str) -> Text:
        """The text in ``folder`` as it lies there now; UserError as ``find_shards`` raises it."""
        found = find_shards(folder)

        def digested(paths: list[Path]) -> tuple[Shard, ...]:
            return tuple(Shard(found.name(path), shard_digest(path)) for path in paths)

        train, held_out = digested(found.train), digested(found.held_out)
        return cls(train, held_out, found.weights, tuple(found.sources))

    @classmethod
    def from_record(cls, record: Any) -> Text:
        """What ``to_record`` gave; UserError where it is something else."""
        return from_dict(cls, record, "the record of the run's text")

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def paths(self, folder: Path | str, split: str) -> list[Path]:
        """Where the shards of ``split`` ("train" or "held_out") lie."""
        shards: Sequence[Shard] = getattr(self, split)
        return [Path(folder) / shard.name for shard in shards]


def continued(began: Text, now: Text, more_data: bool = False) -> Text:
    """The text with which a run goes on that ``began`` with one, its folder holding ``now``.

    The same shards by digest, in the run's order, whatever their names are by now. With
    ``more_data`` the others of the folder are read after them (but those named validation or test),
    and what was held out stays held out.

    Raises UserError where a shard of the run is missing or changed, or another has come and
    ``more_data`` was not said.
    """
    if began.weights != now.weights:
        there, here_now = (", ".join(f"{w:.3g}" for w in t.weights) or "none" for t in (began, now))
        raise UserError(
            f"the run's text was mixed by the weights {there}, and those given are {here_now}; "
            "give the same, or start another run (--out)"
        )
    if began.weights and more_data:
        raise UserError("a mixture takes no --more-data; start another run with --init-from")
    here: dict[str, list[Shard]] = defaultdict(list)
    for shard in (*now.train, *now.held_out):
        here[shard.digest].append(shard)

    def find(shards: tuple[Shard, ...], what: str) -> tuple[Shard, ...]:
        lost = next((shard for shard in shards if not here[shard.digest]), None)
        if lost is not None:
            raise UserError(
                f"{lost.name}, {what}, is not in the data folder as it was; give the folder that "
                "has the run's own text (--data), or start another run (--out)"
            )
        return tuple(here[shard.digest].pop(0) for shard in shards)

    held_out = find(began.held_out, "the run's held-out text")
    train = find(began.train, "which the run learns from")
    added = tuple(s for s in (*now.train, *now.held_out) if s in here[s.digest])
    if added and not more_data:
        names = ", ".join(shard.name for shard in added[:3]) + ", ..." * (len(added) > 3)
        raise UserError(
            f"the data folder holds {names}, new since the run began; --more-data goes on with "
            f"more ({held_out[0].name} stays held out), or take it out, or name another --out"
        )
    train += tuple(s for s in added if split_named(s.name) == "train")
    return Text(train, held_out, began.weights, began.sources)
