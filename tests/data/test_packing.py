"""Best-fit packing: properties of rows, the definition by linear scan, the reference's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.data.packing import Buffer, Document, pack_rows
from nanogpt2.data.shards import find_shards, open_shard, read_row_group

BOS = 0
lengths = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=12)


def make(batches: list[list[int]]) -> list[list[list[int]]]:
    """Documents of these lengths; every token but BOS is different from all others."""
    count = iter(range(1, 10**6))
    return [[[BOS, *(next(count) for _ in range(n - 1))] for n in batch] for batch in batches]


def naive(batches: list[list[list[int]]], capacity: int, size: int) -> list[list[int]]:
    """The definition, by scanning a list."""
    stream, buffer, rows = iter(batches), [], []
    while True:
        row: list[int] = []
        while len(row) < capacity:
            while len(buffer) < size and (batch := next(stream, None)) is not None:
                buffer += batch
            if not buffer:
                return rows
            room = capacity - len(row)
            fitting = [d for d in buffer if len(d) <= room]
            best = max(fitting, key=len) if fitting else min(buffer, key=len)
            # max and min return the earliest of equals; remove by identity, not by value
            del buffer[next(i for i, d in enumerate(buffer) if d is best)]
            row += best[:room]
        rows.append(row)


@settings(max_examples=200)
@given(lengths, st.integers(2, 40), st.integers(1, 10))
def test_rows_are_those_of_the_definition(batches, capacity, size):
    documents = make(batches)
    assert list(pack_rows(documents, capacity, size)) == naive(documents, capacity, size)


@settings(max_examples=200)
@given(lengths, st.integers(2, 40), st.integers(1, 10))
def test_documents_are_whole_and_in_order_but_for_one_cropped_at_a_rows_end(
    batches, capacity, size
):
    documents = {tuple(d) for batch in make(batches) for d in batch}
    used = []
    for row in pack_rows(make(batches), capacity, size):
        assert len(row) == capacity and row[0] == BOS
        starts = [i for i, token in enumerate(row) if token == BOS] + [capacity]
        pieces = [tuple(row[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
        used += pieces
        assert all(piece in documents for piece in pieces[:-1])
        assert any(d[: len(pieces[-1])] == pieces[-1] for d in documents)
    multi = [piece for piece in used if len(piece) > 1]
    assert len(multi) == len(set(multi)), "no document is used twice"


@given(st.lists(st.integers(1, 20), min_size=1), st.integers(0, 25))
def test_the_buffer_gives_the_longest_that_fits_else_the_shortest(sizes, room):
    buffer = Buffer()
    for tag, n in enumerate(sizes):
        buffer.add(Document([0] * n, tag))
    taken = buffer.take(room)
    fitting = [n for n in sizes if n <= room]
    wanted = max(fitting) if fitting else min(sizes)
    assert len(taken.tokens) == wanted and taken.tag == sizes.index(wanted)
    assert len(buffer) == len(sizes) - 1 == len(buffer.in_order())
    tags = [document.tag for document in buffer.in_order()]
    assert tags == sorted(tags)


def test_the_rows_of_the_reference(reference: Path):
    expected = np.load(reference / "packing_one_rank.npz")
    inputs = np.stack([expected[k] for k in sorted(expected) if "input" in k or k.startswith("x")])

    def batches():
        for path in find_shards(reference / "shards").train:
            file = open_shard(path)
            for group in range(file.num_row_groups):
                texts = read_row_group(file, group, path)
                yield [[256, *text.encode()] for text in texts]

    inputs = inputs.reshape(-1, inputs.shape[-1])
    rows = pack_rows(batches(), inputs.shape[-1] + 1, 1000)
    for ours, theirs in zip(rows, inputs, strict=False):
        assert ours[:-1] == theirs.tolist()
