"""The loader: continues exactly from any state, and deals documents out over the ranks."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanogpt2.data.loader import READY, TokenLoader, ahead
from nanogpt2.data.packing import Buffer
from nanogpt2.data.shards import write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    folder = tmp_path_factory.mktemp("shards")
    texts = [f"{i} " + "word " * (i * 7 % 23) + f"end {i}" for i in range(400)]
    for shard in range(4):
        write_shard(folder / f"s{shard}.parquet", texts[shard::4], row_group_size=10)
    return folder, Tokenizer.train(texts, 280)


def loader(data: tuple[Path, Tokenizer], **more) -> TokenLoader:
    return TokenLoader(*data, **{"batch_size": 2, "sequence_len": 48, "buffer_size": 20, **more})


def test_targets_are_the_inputs_one_token_on(data):
    for inputs, targets, _ in islice(loader(data), 5):
        assert inputs.shape == targets.shape == (2, 48)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        assert (inputs[:, 0] == data[1].bos_id).all()


@pytest.mark.parametrize("buffer_size", [1, 20, 1000])
@pytest.mark.parametrize(
    ("world_size", "unit"), [(1, "row group"), (2, "row group"), (3, "document")]
)
def test_from_any_state_the_very_next_batches_come(data, world_size, unit, buffer_size):
    ranks = {"rank": world_size - 1, "world_size": world_size, "buffer_size": buffer_size}
    batches = list(islice(loader(data, **ranks), 60))  # about two epochs or more
    assert batches[0][2]()["sources"][0]["unit"] == unit
    for start in (0, 1, 13, 40):
        state = json.loads(json.dumps(batches[start][2]()))
        again = islice(loader(data, **ranks, state=state), 15)
        for (x, y, s), (x0, y0, s0) in zip(again, batches[start + 1 :], strict=False):
            assert torch.equal(x, x0) and torch.equal(y, y0) and s() == s0()


def documents(batches, tokenizer) -> set[str]:
    """The first numbers of the documents seen: their names."""
    text = "".join(tokenizer.decode(row) for x, _, _ in batches for row in x.tolist())
    return {part.split(" ")[0] for part in text.split("<|bos|>") if " " in part}


def test_ranks_read_different_documents_and_together_all(data):
    # three training shards of 100 documents: 28 batches are about one epoch of one rank of two
    seen = []
    for rank in range(2):
        one = loader(data, rank=rank, world_size=2)
        batches = []
        for batch in one:
            if one.sources[0].next_place.epoch:
                break
            batches.append(batch)
        seen.append(documents(batches, data[1]))
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) > 200


def test_the_last_shard_is_not_trained_on(data):
    names = documents(islice(loader(data), 40), data[1])
    assert {int(name) % 4 for name in names} == {0, 1, 2}


def test_a_state_is_made_when_it_is_asked_for(data, monkeypatch):
    made = []
    real = Buffer.in_order
    monkeypatch.setattr(Buffer, "in_order", lambda *a: made.append(1) or real(*a))
    batches = list(islice(loader(data), 7))
    assert not made
    states = [state() for _, _, state in batches]
    assert len(made) == 7 and states[3] != states[4]


def test_batches_made_ahead_are_the_same_and_their_states_too(data):
    for (x, y, s), (x0, y0, s0) in zip(ahead(islice(loader(data), 30)), loader(data), strict=False):
        assert torch.equal(x, x0) and torch.equal(y, y0) and s() == s0()


def test_so_many_are_made_ahead_by_another_thread_and_no_more():
    made: list[str] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(threading.current_thread().name)
            yield number
        raise UserError("the text is over")

    stream = ahead(items())
    assert next(stream) == 0
    while len(made) < 1 + READY:
        time.sleep(0.001)
    for number in range(1, 20):
        assert len(made) <= number + READY
        assert next(stream) == number
    with pytest.raises(UserError, match="the text is over"):
        next(stream)
    assert all(name.startswith("ahead") for name in made)
    assert list(ahead(range(3))) == [0, 1, 2] and list(ahead([])) == []


def test_another_number_of_ranks_continues_near_the_place(data):
    *_, (_, _, made) = islice(loader(data), 10)
    state = made()
    resumed = loader(data, rank=1, world_size=2, state=state)
    x, _, after = next(iter(resumed))
    (place,), (then,) = state["sources"], after()["sources"]
    assert x.shape == (2, 48) and then["next"] >= place["next"]


def test_shards_are_read_in_the_order_in_which_they_are_given(data):
    folder, tokenizer = data
    shards = sorted(folder.iterdir())
    given_all = loader((shards[:-1], tokenizer))
    for a, b in zip(islice(given_all, 5), loader(data), strict=False):
        assert torch.equal(a[0], b[0])
    names = documents(islice(loader((shards[2:1:-1], tokenizer)), 10), tokenizer)
    assert names and all(int(name) % 4 == 2 for name in names)


def test_states_that_do_not_fit_are_refused(data, tmp_path):
    *_, (_, _, made) = islice(loader(data), 3)
    (place,) = made()["sources"]

    def state(**changes):
        return {"sources": [{**place, **changes}], "given": [1]}

    with pytest.raises(UserError, match="place in the data does not fit"):
        loader(data, state=state(next="?"))
    for other in (state(next=[0, 99, 0, 0]), {"sources": [place] * 2, "given": [1, 1]}):
        with pytest.raises(UserError, match="other data shards"):
            loader(data, state=other)
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.parquet", ["short"])
    with pytest.raises(UserError, match="other data shards"):
        loader((tmp_path, data[1]), state=state(next=[0, 0, 0, 0], buffer=[[0, 0, 9, 0]]))


numbers = st.one_of(st.integers(-2, 12), st.sampled_from([10**30, 1e308, math.inf, math.nan]))
places = st.lists(numbers, min_size=4, max_size=4)
wrong = st.sampled_from([None, 1.5, "abc", [[]], [None] * 4, {"a": 1}])
positions = st.fixed_dictionaries(
    {
        "next": st.one_of(places, places, wrong),
        "buffer": st.one_of(st.lists(places, max_size=2), st.just([]), wrong),
    },
    optional={
        "rank": st.sampled_from([0, 1, "0"]),
        "unit": st.sampled_from(["document", "row group", None, "page", []]),
    },
).map(lambda place: {"rank": 0, "world_size": 1, **place})
states = positions.map(lambda place: {"sources": [place], "given": [0]})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(states, states, wrong))
def test_any_state_is_continued_or_refused_in_a_sentence(data, state):
    try:
        x, _, after = next(iter(loader(data, state=state)))
    except UserError:
        return
    assert x.shape == (2, 48)
    again = list(islice(loader(data, state=after()), 2))
    assert all((x >= 0).all() for x, _, _ in again)


@pytest.mark.cuda
def test_batches_on_cuda_are_those_of_the_processor(data):
    for a, b in zip(islice(loader(data, device="cuda"), 20), loader(data), strict=False):
        assert a[0].is_cuda and torch.equal(a[0].cpu(), b[0])
