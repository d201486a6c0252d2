"""Documents in random row groups, dealt to random ranks: each is read at most once an epoch."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nanogpt2.data import loader
from nanogpt2.data.loader import REFILL, TokenLoader
from nanogpt2.data.packing import Buffer, Document
from nanogpt2.training.start import position
from tests.data.layouts import Numbers, write
from tests.drills.fuzz_readers import Act
from tests.drills.mutations import VALUES

WORLDS = (1, 2, 2, 3, 4, 7)


class Lengths(Numbers):
    """Documents of one to five tokens after <|bos|>, all of them their number."""

    def encode_batch(
        self, texts: Sequence[str], prepend_bos: bool = True, threads: int = 1
    ) -> list[list[int]]:
        return [[0] + [int(text)] * (1 + int(text) % 5) for text in texts]


class Ledger(Buffer):
    """A packing buffer that notes what is taken out."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Document] = []

    def take(self, room: int) -> Document:
        self.taken.append(super().take(room))
        return self.taken[-1]


class Reader:
    """One rank, and what it has read."""

    def __init__(self, paths: list[Path], rank: int, world: int, size: int, state: Any) -> None:
        with patch.object(loader, "Buffer", Ledger):
            self.loader = TokenLoader(
                paths, Lengths(), 1, 6, rank=rank, world_size=world, buffer_size=size,
                state=state,
            )  # fmt: skip
        self.ledger: Any = self.loader.sources[0].buffer

    def read(self, batches: int) -> None:
        """So many batches."""
        for _ in islice(self.loader, batches):
            pass

    @property
    def state(self) -> Any:
        """As a checkpoint has it."""
        return json.loads(json.dumps(self.loader.here()()))

    @property
    def whole_epochs(self) -> int:
        """Epochs of which this rank has nothing more to read."""
        waiting = [document.tag.epoch for document in self.ledger.in_order()]
        return min([self.loader.sources[0].next_place.epoch, *waiting])


def require_once(layout: list[list[int]], *readers: Reader) -> None:
    """No place twice, and at each the document that was written there."""
    taken = [document for reader in readers for document in reader.ledger.taken]
    firsts, number = {}, 0
    for shard, groups in enumerate(layout):
        for group, size in enumerate(groups):
            firsts[shard, group] = number
            number += size
    places = [document.tag for document in taken]
    assert len(set(places)) == len(places), f"read twice: {sorted(places)}"
    for document in taken:
        _, shard, group, row = document.tag
        assert document.tokens[1] == firsts[shard, group] + row


def require_all(layout: list[list[int]], epochs: int, *readers: Reader) -> None:
    """Nothing of the first ``epochs`` is left out."""
    places = [document.tag for reader in readers for document in reader.ledger.taken]
    wanted = epochs * sum(map(sum, layout))
    assert sum(place.epoch < epochs for place in places) == wanted, f"left out: {sorted(places)}"


def ranks(seeds: Path, work: Path, generator: random.Random) -> Act:
    """Shards, ranks that read for a while, and ranks that go on from their states."""
    g = generator
    sizes = g.choice(((0, 1), (1, 3), (5, 5), (0, 12)))
    layout = [[g.randint(*sizes) for _ in range(g.randint(0, 4))] for _ in range(g.randint(1, 3))]
    if g.random() < 0.02:
        layout[0].append(REFILL + g.randint(-1, 2))  # a row group of more than one refill
    paths = write(work, layout)
    world, size, batches = g.choice(WORLDS), g.randint(1, 12), g.randint(1, 6)
    change = g.choice((_same, _resharded, _foreign, _damaged))

    def act() -> None:
        before = [Reader(paths, rank, world, size, None) for rank in range(world)]
        for reader in before:
            reader.read(batches)
        require_once(layout, *before)
        require_all(layout, min(reader.whole_epochs for reader in before), *before)
        change(paths, layout, before, size, g)

    return act


def _same(paths: list[Path], layout: Any, before: list[Reader], size: int, g: Any) -> None:
    """As many ranks go on: nothing is read twice, nothing left out."""
    world = len(before)
    after = [Reader(paths, i, world, size, reader.state) for i, reader in enumerate(before)]
    for reader in after:
        reader.read(g.randint(1, 6))
    require_once(layout, *before, *after)
    require_all(layout, min(reader.whole_epochs for reader in after), *before, *after)


def _resharded(paths: list[Path], layout: Any, before: list[Reader], size: int, g: Any) -> None:
    """Another number goes on: none of the new ones reads what another of them reads."""
    world, states = g.choice(WORLDS), [reader.state for reader in before]
    after = [Reader(paths, i, world, size, position(states, i, world)) for i in range(world)]
    for reader in after:
        reader.read(g.randint(1, 6))
    if world != len(before):
        require_once(layout, *after)


def _foreign(paths: list[Path], layout: Any, before: list[Reader], size: int, g: Any) -> None:
    """All go on from the state of one of the others."""
    world, state = g.choice(WORLDS), g.choice(before).state
    after = [Reader(paths, i, world, size, state) for i in range(world)]
    (place,) = state["sources"]
    own = [(place["rank"], place["world_size"]) == (i, world) for i in range(world)]
    for reader in after:
        reader.read(g.randint(1, 6))
    if not any(own):
        require_once(layout, *after)


def _damaged(paths: list[Path], layout: Any, before: list[Reader], size: int, g: Any) -> None:
    """A state with something wrong is continued or refused."""
    state = copy.deepcopy(g.choice(before).state)
    (place,) = state["sources"]
    holder: Any = g.choice([state, place, place["next"], place["buffer"], *place["buffer"]])
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if keys:
        holder[g.choice(keys)] = g.choice((*VALUES, 1, 2, 7, 1000))
    Reader(paths, g.randrange(7), 7, size, g.choice((state, holder))).read(3)
