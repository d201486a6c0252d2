"""Shards: written and read whole; whatever is wrong with one is said in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanogpt2.data import shards
from nanogpt2.data.shards import list_shards, open_shard, read_documents, split_shards, write_shard
from nanogpt2.errors import UserError

DOCUMENTS = [f"document {i} \N{GREEK SMALL LETTER ALPHA}" for i in range(25)]


def test_what_is_written_is_read(tmp_path: Path):
    write_shard(tmp_path / "a.parquet", DOCUMENTS, row_group_size=10)
    assert list(read_documents(tmp_path / "a.parquet")) == DOCUMENTS
    assert open_shard(tmp_path / "a.parquet").num_row_groups == 3


def test_the_last_shard_is_for_validation(tmp_path: Path):
    for name in ("b", "a", "c", ".hidden"):
        write_shard(tmp_path / f"{name}.parquet", DOCUMENTS)
    assert [p.stem for p in split_shards(tmp_path, "train")] == ["a", "b"]
    assert [p.stem for p in split_shards(tmp_path, "val")] == ["c"]


def test_a_missing_text_is_an_empty_document(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == ["a", ""]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pages":
        path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    else:
        if how == "two columns":
            return pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), path)
        column = {"other column": {"words": ["a"]}, "numbers": {"text": [1]}}[how]
        pq.write_table(pa.table(column), path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "not a readable parquet file"),
        ("empty", "not a readable parquet file"),
        ("pages", "not a readable parquet file"),
        ("other column", "no column 'text' .it has words"),
        ("numbers", "must hold strings"),
        ("two columns", "several columns"),
    ],
)
def test_a_bad_shard_is_named_with_what_is_wrong(tmp_path: Path, how: str, words: str):
    write_shard(tmp_path / "a.parquet", DOCUMENTS)
    damage(tmp_path / "a.parquet", how)
    with pytest.raises(UserError, match=words) as caught:
        list(read_documents(tmp_path / "a.parquet"))
    assert "a.parquet" in str(caught.value)


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


def test_too_few_shards(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        list_shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds 0 parquet files"):
        list_shards(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_shard(tmp_path / "nowhere.parquet")
