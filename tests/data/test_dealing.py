"""Documents are dealt to exactly one rank each, and as many to every rank, whatever the files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanogpt2.data.dealing import TOLERANCE, Deal, fair_unit
from nanogpt2.data.loader import REFILL, TokenLoader
from nanogpt2.data.shards import open_shard, read_row_group
from nanogpt2.errors import UserError
from nanogpt2.training.start import position
from tests.data.layouts import Layout, Numbers, write

UNEVEN: Layout = [[20, 20, 20]] * 3 + [[20, 20, 20, 20]] + [[20, 20, 20]] * 2
ONE_GROUP: Layout = [[120], [120]]  # as pandas writes files

layouts = st.lists(st.lists(st.integers(0, 12), max_size=5), min_size=1, max_size=3).filter(
    lambda layout: any(map(sum, layout))
)
worlds = st.integers(1, 7)


def total(layout: Layout) -> int:
    return sum(map(sum, layout))


def dealt(deal: Deal, epoch: int) -> list[tuple[int, int, int]]:
    """The documents of a rank in an epoch: shard, row group, number in it."""
    return [
        (shard, group, row)
        for shard, groups in enumerate(deal.counts)
        for group in range(len(groups))
        for row in deal.rows(epoch, shard, group)
    ]


# The arithmetic


@given(layouts, worlds, st.sampled_from([None, "row group", "document"]), st.integers(0, 9))
def test_every_document_of_an_epoch_is_dealt_to_exactly_one_rank(layout, world, unit, epoch):
    ranks = [dealt(Deal(layout, rank, world, unit), epoch) for rank in range(world)]
    everything = [
        (shard, group, row)
        for shard, groups in enumerate(layout)
        for group, size in enumerate(groups)
        for row in range(size)
    ]
    assert sorted(sum(ranks, [])) == everything


@given(layouts, worlds, st.integers(1, 5))
def test_ranks_get_equally_many(layout, world, epochs):
    deals = [Deal(layout, rank, world) for rank in range(world)]
    shares = [sum(len(dealt(deal, epoch)) for epoch in range(epochs)) for deal in deals]
    allowed = TOLERANCE * min(shares) if deals[0].unit == "row group" else 1
    assert max(shares) - min(shares) <= allowed


@given(layouts, worlds)
def test_every_rank_gets_something(layout, world):
    for rank in range(world):
        deal = Deal(layout, rank, world)
        assert not deal.leaves_nothing()
        assert any(dealt(deal, epoch) for epoch in range(world))


def test_what_is_dealt():
    assert [fair_unit(UNEVEN, world) for world in (1, 3, 4)] == [
        "row group",
        "document",
        "document",
    ]
    assert fair_unit([[20] * 3, [20] * 6], 3) == "row group"
    assert fair_unit(ONE_GROUP, 2) == "document"
    assert fair_unit([[1000, 980]], 2) == "document"
    assert fair_unit([[1000, 981]], 2) == "row group", "within 2%"


def test_the_sentence():
    assert Deal(UNEVEN).describe() == "an epoch is 380 documents in 6 shards, all read by one rank"
    even = Deal([[700, 700]], 1, 2).describe()
    assert even == "an epoch is 1,400 documents in 1 shard, dealt out to 2 ranks by row group"
    uneven = Deal(UNEVEN, 1, 4).describe()
    assert "380 documents in 6 shards, dealt out to 4 ranks one by one, because" in uneven


# The loader over files of any layout


def load(paths: list[Path], rank: int, world: int, **more) -> TokenLoader:
    """Rows of two tokens: every batch is one document, and none is cropped."""
    options = {"batch_size": 1, "sequence_len": 1, "buffer_size": 1, **more}
    return TokenLoader(paths, Numbers(), rank=rank, world_size=world, **options)  # type: ignore[arg-type]


def epoch(loader: TokenLoader) -> int:
    """How many times the shards have been read to their end."""
    return loader.sources[0].next_place.epoch


def stream(loader: TokenLoader) -> Iterator[int]:
    """The documents that a rank reads, in order."""
    return (targets.item() for _, targets, _ in loader)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


on_files = settings(max_examples=25)


def by_row_group(layout: Layout, rank: int, world: int) -> list[int]:
    """Row groups rank, rank + world, ... of each shard: the documents of one epoch."""
    numbers = iter(range(total(layout)))
    shards = [[list(islice(numbers, size)) for size in groups] for groups in layout]
    return [n for shard in shards for group in shard[rank::world] for n in group]


@on_files
@given(layouts, worlds)
def test_document_n_is_read_by_rank_n_modulo_world_on_uneven_files(folder, layout, world):
    assume(fair_unit(layout, world) == "document")
    paths, n = write(folder, layout), total(layout)
    for rank in range(world):
        wanted = [number % n for number in range(rank, 3 * n, world)]
        assert list(islice(stream(load(paths, rank, world)), len(wanted))) == wanted


@on_files
@given(worlds, st.data())
def test_whole_row_groups_are_read_on_even_files(folder, world, data):
    # each shard has its own size of groups, as many for each rank
    sizes = st.tuples(st.integers(1, 12), st.integers(1, 3))
    shards = data.draw(st.lists(sizes, min_size=1, max_size=3))
    layout = [[size] * (world * times) for size, times in shards]
    paths = write(folder, layout)
    for rank in range(world):
        epoch = by_row_group(layout, rank, world)
        two = list(islice(cycle(epoch), 2 * len(epoch)))
        assert list(islice(stream(load(paths, rank, world)), len(two))) == two


@on_files
@given(layouts, worlds, st.integers(1, 40), st.integers(1, 60))
def test_ranks_are_never_more_than_a_refill_apart(folder, layout, world, buffer_size, batches):
    paths = write(folder, layout)
    loaders = [load(paths, rank, world, buffer_size=buffer_size) for rank in range(world)]
    for loader in loaders:
        list(islice(loader, batches))
    epochs = [epoch(loader) for loader in loaders]
    refill = min(REFILL, max(map(max, filter(None, layout))))
    apart = refill * world / total(layout) + TOLERANCE * max(epochs)
    assert max(epochs) - min(epochs) <= math.ceil(apart)


@pytest.mark.parametrize("world", [3, 4])
@pytest.mark.parametrize("layout", [UNEVEN, ONE_GROUP], ids=["uneven", "one_group"])
def test_one_epoch_of_all_ranks_is_every_document_once(tmp_path, layout, world):
    paths, n = write(tmp_path, layout), total(layout)
    read = [list(islice(stream(load(paths, rank, world)), n // world)) for rank in range(world)]
    numbers = sorted(sum(read, []))
    assert numbers == list(range(n - n % world)), "the rest is of the next turn"


def test_two_documents_for_five_ranks(tmp_path):
    paths = write(tmp_path, [[1], [1]])
    read = [list(islice(stream(load(paths, rank, 5)), 4)) for rank in range(5)]
    assert read == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


# States


@on_files
@given(layouts, worlds, st.data())
def test_from_any_batch_on_the_same_follows(folder, layout, world, data):
    paths, rank = write(folder, layout), data.draw(st.integers(0, world - 1))
    buffer_size, stop = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 50))
    batches = list(islice(load(paths, rank, world, buffer_size=buffer_size), stop + 10))
    state = batches[stop - 1][2]()
    again = load(paths, rank, world, buffer_size=buffer_size, state=state)
    for (_, y, s), (_, expected, then) in zip(again, batches[stop:], strict=False):
        assert y.tolist() == expected.tolist() and s() == then()


@on_files
@given(layouts, worlds, worlds, st.integers(1, 40), st.integers(1, 40))
def test_no_document_is_skipped_when_the_number_of_ranks_changes(
    folder, layout, before, after, buffer_size, batches
):
    assume(before != after)
    paths = write(folder, layout)
    old = [load(paths, rank, before, buffer_size=buffer_size) for rank in range(before)]
    read = {n for loader in old for n in islice(stream(loader), batches)}
    states = [loader.here()() for loader in old]
    for rank in range(after):
        loader = load(paths, rank, after, state=position(states, rank, after))
        end = epoch(loader) + 1
        for n in stream(loader):
            read.add(n)
            if epoch(loader) >= end and not len(loader.sources[0].buffer):
                break
    assert read == set(range(total(layout)))


def test_a_changed_number_of_ranks_reads_what_stood_in_the_buffers_first(tmp_path):
    paths = write(tmp_path, [[10, 10]])
    read = [list(islice(load(paths, rank, 2, buffer_size=4), 3)) for rank in range(2)]
    states = [batches[-1][2]() for batches in read]
    assert [state["sources"][0]["unit"] for state in states] == ["row group"] * 2
    # both have taken up their group, and read three documents of it: 0 to 2, and 10 to 12
    read = [
        list(islice(stream(load(paths, rank, 3, state=position(states, rank, 3))), 6))
        for rank in range(3)
    ]
    assert read == [[3, 6, 9, 12, 15, 18], [4, 7, 10, 13, 16, 19], [5, 8, 11, 14, 17, 0]]


def test_a_state_by_row_group_goes_on_so_where_it_is_not_fair_any_more(tmp_path):
    paths = write(tmp_path, UNEVEN)
    place = {"next": [0, 1, 1, 5], "buffer": [[0, 0, 1, 7]], "rank": 1, "world_size": 4}
    state = {"sources": [{**place, "unit": "row group"}], "given": [9]}
    epoch = by_row_group(UNEVEN, 1, 4)
    wanted = [epoch[7], *epoch[25:], *epoch]
    again = load(paths, 1, 4, state=state)
    assert list(islice(stream(again), len(wanted))) == wanted


def test_a_state_by_row_group_where_the_rank_has_none_is_refused(tmp_path):
    paths = write(tmp_path, ONE_GROUP)
    place = {"next": [0, 0, 1, 0], "buffer": [], "rank": 1, "world_size": 2, "unit": "row group"}
    with pytest.raises(UserError, match="no document in .* for rank 1"):
        load(paths, 1, 2, state={"sources": [place], "given": [9]})


# Files


@pytest.mark.parametrize("layout", [[[]], [[0, 0], []]], ids=["no groups", "empty groups"])
def test_no_document_at_all_is_said(tmp_path, layout):
    with pytest.raises(UserError, match=r"no document in .*s0\.parquet"):
        load(write(tmp_path, layout), 0, 1)
    with pytest.raises(UserError, match="an empty list"):
        load([], 0, 1)


def test_a_damaged_footer_is_found_before_the_first_batch(tmp_path):
    paths = write(tmp_path, UNEVEN)
    paths[3].write_bytes(paths[3].read_bytes()[:-20])
    with pytest.raises(UserError, match=r"s3\.parquet is not a readable parquet file"):
        load(paths, 0, 1)


def test_some_rows_of_a_row_group(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c", "d"]}), path)
    file = open_shard(path)
    assert read_row_group(file, 0, path, range(1, 4, 2)) == ["", "d"]
    assert read_row_group(file, 0, path, [2]) == ["c"]
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_row_group(file, 0, path, [4])


def test_a_place_of_before_sources_is_gone_on_from(tmp_path):
    """Checkpoints of earlier versions told the place of a single source by itself."""
    paths = write(tmp_path, [[10, 10]])
    batches = list(islice(load(paths, 0, 1, buffer_size=4), 6))
    now = batches[2][2]()
    (before,) = now["sources"]
    again = load(paths, 0, 1, buffer_size=4, state=position([before], 0, 1))
    for (_, y, _), (_, expected, _) in zip(again, batches[3:], strict=False):
        assert y.tolist() == expected.tolist()
    shared = position([before], 1, 2)
    assert shared["sources"] == position([now], 1, 2)["sources"]
