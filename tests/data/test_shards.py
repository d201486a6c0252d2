"""Shards: written and read whole; whatever is wrong with one is said in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanogpt2.data import shards
from nanogpt2.data.shards import open_shard, read_documents, write_shard
from nanogpt2.errors import UserError

DOCUMENTS = [f"document {i} \N{GREEK SMALL LETTER ALPHA}" for i in range(25)]


def test_what_is_written_is_read(tmp_path: Path):
    write_shard(tmp_path / "a.parquet", DOCUMENTS, row_group_size=10)
    assert list(read_documents(tmp_path / "a.parquet")) == DOCUMENTS
    assert open_shard(tmp_path / "a.parquet").num_row_groups == 3


def test_a_missing_text_is_an_empty_document(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == ["a", ""]
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "b.parquet")
    assert list(read_documents(tmp_path / "b.parquet")) == ["", ""]


TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_whatever_is_text_is_read(tmp_path: Path, kind: pa.DataType, dictionary: bool):
    column = pa.array([*DOCUMENTS, None, DOCUMENTS[0]], kind)
    if dictionary:  # pandas' categories
        column = pa.array(column.to_pylist(), pa.string()).dictionary_encode()
        column = column.cast(pa.dictionary(pa.int32(), kind)) if kind != TEXT_TYPES[2] else column
    pq.write_table(pa.table({"text": column, "id": range(27)}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == [*DOCUMENTS, "", DOCUMENTS[0]]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_a_row_that_is_no_utf8_is_named(tmp_path: Path, kind: pa.DataType):
    raw = pa.array([*(text.encode() for text in DOCUMENTS), b"caf\xe9 cr\xe8me"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    pq.write_table(pa.table({"text": column.cast(kind)}), tmp_path / "a.parquet", row_group_size=10)
    with pytest.raises(UserError) as caught:
        list(read_documents(tmp_path / "a.parquet"))
    words = ("a.parquet", "row 5 of row group 2", "row 25 of the file", "0xe9 at 3", "Latin-1")
    assert all(word in str(caught.value) for word in words)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "pages":
        path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    else:
        if how == "two columns":
            return pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), path)
        column = {
            "other column": {"id": [1], "content": ["a"]},
            "capital": {"Text": ["a"]},
            "no text": {"id": [1]},
            "numbers": {"text": [1]},
            "lists": {"text": [["a"]]},
            "structs": {"text": [{"a": "b"}]},
            "bytes": {"text": [b"a"]},
        }[how]
        pq.write_table(pa.table(column), path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "not a readable parquet file"),
        ("empty", "not a readable parquet file .it is empty"),
        ("folder", "not a readable parquet file"),
        ("pages", "not a readable parquet file"),
        ("other column", r"no column 'text' .it has id, content.*columns=\{'content': 'text'\}"),
        ("capital", r"no column 'text' .it has Text.*columns=\{'Text': 'text'\}"),
        ("no text", "no column 'text' .it has id.; rename the column with the documents"),
        ("numbers", "holds int64; it must hold strings"),
        ("lists", "holds list<element: string>; it must hold strings"),
        ("structs", "holds struct<a: string>; it must hold strings"),
        ("bytes", "holds binary; it must hold strings"),
        ("two columns", "several columns"),
    ],
)
def test_a_bad_shard_is_named_with_what_is_wrong(tmp_path: Path, how: str, words: str):
    write_shard(tmp_path / "a.parquet", DOCUMENTS)
    damage(tmp_path / "a.parquet", how)
    with pytest.raises(UserError, match=words) as caught:
        list(read_documents(tmp_path / "a.parquet"))
    assert "a.parquet" in str(caught.value)
    assert "delete" not in str(caught.value), "it is the user's own"


def test_a_shard_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path / "a.parquet", DOCUMENTS)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(UserError, match="a.parquet may not be read by you; change its permissions"):
        open_shard(tmp_path / "a.parquet")


def test_names_that_are_no_text(tmp_path: Path):
    write_shard(tmp_path / "a.parquet", DOCUMENTS)
    content = (tmp_path / "a.parquet").read_bytes()
    places = [found.start() for found in re.finditer(b"text", content)]
    assert len(places) >= 2, "in the schema and in the column's own facts"
    for place in places:
        changed = content[:place] + b"t\xe5xt" + content[place + 4 :]
        (tmp_path / "a.parquet").write_bytes(changed)
        try:
            assert len(list(read_documents(tmp_path / "a.parquet"))) == len(DOCUMENTS)
        except UserError as error:
            assert "a.parquet" in str(error)


def test_a_row_group_too_large_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_shard(tmp_path / "a.parquet", DOCUMENTS)
    monkeypatch.setattr(shards, "LARGEST_ROW_GROUP", 100)
    with pytest.raises(UserError, match="smaller row groups"):
        list(read_documents(tmp_path / "a.parquet"))
