"""Text of several sources by weights: the shares, and that a run of it can be resumed."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.data.dealing import furthest_behind
from nanogpt2.data.loader import TokenLoader
from nanogpt2.data.mixture import lay_out, parts_of, wanted
from nanogpt2.data.shards import find_shards, read_documents, write_shard
from nanogpt2.data.source import Text, continued
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.training.start import position

TOKENIZER = Tokenizer.train(["the mill and the river " * 9], 270)
WEIGHTS = (0.7, 0.3)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two of different sizes: one of a, the other of b."""
    for letter, count in (("a", 90), ("b", 31)):
        for shard in range(3):
            texts = [f"{n} {letter * (9 + n % 23)}" for n in range(shard, count, 3)]
            write_shard(tmp_path / letter / f"s{shard}.parquet", texts, 5)
    return [tmp_path / "a", tmp_path / "b"]


def loader(folder: Path, state: Any = None, rank: int = 0, world_size: int = 1) -> TokenLoader:
    return TokenLoader(
        folder, TOKENIZER, 4, 32, rank=rank, world_size=world_size, state=state, buffer_size=20
    )


def letters(batch: tuple[torch.Tensor, ...]) -> list[str]:
    """Which source each row is of."""
    texts = (TOKENIZER.decode(row.tolist()) for row in batch[1])
    return ["a" if text.count("a") > text.count("b") else "b" for text in texts]


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, 400))
def test_each_source_gives_its_share_to_a_turn(weights: list[float], turns: int) -> None:
    given_ = [0] * len(weights)
    for _ in range(turns):
        given_[furthest_behind(given_, weights)] += 1
    for count, weight in zip(given_, weights, strict=True):
        share = turns * weight / sum(weights)
        assert share - len(weights) < count < share + 1


def mixed(sources: list[Path], out: Path) -> Path:
    names = [f"{path}:{weight}" for path, weight in zip(sources, WEIGHTS, strict=True)]
    lay_out(names, out)
    return out


def test_rows_come_by_weights_and_the_small_source_is_read_again(
    sources: list[Path], tmp_path: Path
) -> None:
    batches = list(islice(loader(mixed(sources, tmp_path / "mix")), 25))
    seen = Counter(letter for batch in batches for letter in letters(batch))
    assert seen == {"a": 70, "b": 30}
    assert batches[-1][2]()["sources"][1]["next"][0] > 0  # its second epoch


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 3), (2, 3)])
def test_a_resumed_mixture_goes_on_to_the_bit(
    sources: list[Path], tmp_path: Path, rank: int, world_size: int
) -> None:
    folder = mixed(sources, tmp_path / "mix")
    whole = list(islice(loader(folder, None, rank, world_size), 20))
    again = loader(folder, whole[7][2](), rank, world_size)
    for (x, y, state), (x2, y2, state2) in zip(whole[8:], again, strict=False):
        assert torch.equal(x, x2) and torch.equal(y, y2) and state() == state2()


def test_other_ranks_go_on_from_the_furthest_behind(sources: list[Path], tmp_path: Path) -> None:
    folder = mixed(sources, tmp_path / "mix")
    saved = [list(islice(loader(folder, None, rank, 2), 6))[-1][2]() for rank in range(2)]
    for rank in range(3):
        batches = islice(loader(folder, position(saved, rank, 3), rank, 3), 10)
        seen = Counter(letter for batch in batches for letter in letters(batch))
        assert abs(seen["a"] - 28) <= 1


def test_the_measured_text_is_mixed_as_well(sources: list[Path], tmp_path: Path) -> None:
    shards = find_shards(mixed(sources, tmp_path / "mix"))
    texts = [text for path in shards.held_out for text in read_documents(path)]
    sizes = {letter: sum(len(t) for t in texts if letter in t) for letter in "ab"}
    assert sizes["a"] / sum(sizes.values()) == pytest.approx(0.7, abs=0.1)
    held_out = {text for folder in sources for path in find_shards(folder).held_out
                for text in read_documents(path)}  # fmt: skip
    assert set(texts) <= held_out


def test_text_that_is_no_shards_is_prepared_for_it(sources: list[Path], tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / "prose").mkdir(exist_ok=True)
        (tmp_path / "prose" / f"{n}.txt").write_text(f"{n}: as people write it, {n} times over.")
    names = [f"{sources[0]}:3", f"{tmp_path / 'prose'}:1"]
    lay_out(names, tmp_path / "mix")
    found = find_shards(tmp_path / "mix")
    assert found.weights == (0.75, 0.25)
    assert {path.parent for path in found.train} == {sources[0], tmp_path / "mix-1"}
    before = wanted(names)
    (tmp_path / "prose" / "new.txt").write_text("One more that nobody has read so far.")
    assert wanted(names) != before


def test_a_run_keeps_its_weights(sources: list[Path], tmp_path: Path) -> None:
    began = Text.of(mixed(sources, tmp_path / "mix"))
    assert Text.from_record(began.to_record()) == began
    assert continued(began, began) == began
    lay_out([f"{sources[0]}:1", f"{sources[1]}:1"], tmp_path / "even")
    with pytest.raises(UserError, match=r"0\.7, 0\.3, and those given are 0\.5, 0\.5"):
        continued(began, Text.of(tmp_path / "even"))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a:0.7", "b"], "b has no weight"),
        (["a:0", "b:1"], "must be positive"),
        (["a:nan", "b:1"], "must be positive"),
        (["nowhere:0.7"], "no such file"),
        (["a:much"], "no such file"),
    ],
)
def test_weights_that_cannot_be(
    names: list[str], sentence: str, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sources[0].parent)
    with pytest.raises(UserError, match=sentence):
        parts_of(names)
