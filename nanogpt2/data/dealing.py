"""Documents dealt out over the ranks: each to one of them, and to all as many.

Shards are written in row groups, which are read whole, so a rank reads least when it is dealt whole
row groups: of each shard, rank r takes groups r, r + world size, ... That is fair only if the
groups come out even. Where they do not, documents are dealt like cards: they are counted through
the epoch and on into the next, and number n goes to rank n mod world size. Every rank then has
documents to read however few there are. Chapter: tokens_and_rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

Unit = Literal["row group", "document"]

TOLERANCE = 0.02
"""by how much more than the least that a rank gets another may get, in documents an epoch"""


def fair_unit(counts: Sequence[Sequence[int]], world_size: int) -> Unit:
    """What to deal: row groups if the ranks get equally many documents so, else documents."""
    shares = [_by_row_group(counts, rank, world_size) for rank in range(world_size)]
    return "row group" if max(shares) <= (1 + TOLERANCE) * min(shares) else "document"


def _by_row_group(counts: Sequence[Sequence[int]], rank: int, world_size: int) -> int:
    """A rank's documents in an epoch that is dealt out so."""
    return sum(sum(groups[rank::world_size]) for groups in counts)


class Deal:
    """Which documents are those of one rank.

    Args:
        counts: ``counts[s][g]`` documents are in row group g of shard s.
        rank, world_size: whose documents, and of how many ranks.
        unit: what is dealt; None: what is fair.
    """

    def __init__(
        self,
        counts: Sequence[Sequence[int]],
        rank: int = 0,
        world_size: int = 1,
        unit: Unit | None = None,
    ) -> None:
        self.counts, self.rank, self.world_size = counts, rank, world_size
        self.unit: Unit = unit or fair_unit(counts, world_size)
        *firsts, self.total = accumulate((n for groups in counts for n in groups), initial=0)
        numbers = iter(firsts)
        # the number, within an epoch, of the first document of each row group
        self._firsts = [[next(numbers) for _ in groups] for groups in counts]

    def rows(self, epoch: int, shard: int, row_group: int) -> range:
        """This rank's documents of a row group, counted from its first."""
        count = self.counts[shard][row_group]
        if self.unit == "row group":
            return range(count if row_group % self.world_size == self.rank else 0)
        first = epoch * self.total + self._firsts[shard][row_group]
        return range((self.rank - first) % self.world_size, count, self.world_size)

    def leaves_nothing(self) -> bool:
        """Whether this rank has no document to read, in any epoch."""
        dealt = _by_row_group(self.counts, self.rank, self.world_size)
        return not (dealt if self.unit == "row group" else self.total)

    def describe(self) -> str:
        """How the documents are dealt out, in a sentence."""
        shards = f"{len(self.counts):,} shard{'s' * (len(self.counts) > 1)}"
        epoch = f"an epoch is {self.total:,} documents in {shards}"
        if self.world_size == 1:
            return f"{epoch}, all read by one rank"
        if self.unit == "row group":
            return f"{epoch}, dealt out to {self.world_size} ranks by row group"
        return (
            f"{epoch}, dealt out to {self.world_size} ranks one by one, "
            "because whole row groups would not come out even"
        )


def furthest_behind(given: Sequence[int], weights: Sequence[float]) -> int:
    """Whose turn it is of the sources of a mixture: who lacks most of its share.

    After any number of turns a source is less than one ahead of its share, and behind it by less
    than one for each source.
    """
    turn, whole = sum(given) + 1, sum(weights)
    return max(range(len(given)), key=lambda n: turn * weights[n] / whole - given[n])
