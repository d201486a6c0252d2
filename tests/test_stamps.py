"""A stage is skipped only when its inputs are the same and its files are whole."""

from __future__ import annotations

import pytest

from nanogpt2.stamps import Stamps, digest

INPUTS = {"vocabulary": 4096, "data": "embedded"}


@pytest.fixture
def stamps(tmp_path):
    """A stage that made a file and a folder of files."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "one").write_bytes(b"abc")
    (tmp_path / "table").write_bytes(b"0123456789")
    stamps = Stamps(tmp_path)
    assert not stamps.valid("data", INPUTS)  # nothing there yet
    stamps.write("data", INPUTS, [tmp_path / "shards", tmp_path / "table"])
    assert stamps.valid("data", INPUTS)
    return stamps


def test_other_inputs_make_it_stale(stamps):
    assert not stamps.valid("data", {**INPUTS, "vocabulary": 8192})
    assert stamps.valid("data", dict(reversed(INPUTS.items())))  # the order of keys is no input


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "grow"])
def test_a_damaged_file_makes_it_stale(stamps, damage):
    path = stamps.folder / "shards" / "one"
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes({"truncate": b"ab", "flip": b"abd", "grow": b"abcd"}[damage])
    assert not stamps.valid("data", INPUTS)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"inputs": 1}', '{"inputs": "x", "files": 3}']
)
def test_a_damaged_stamp_is_no_stamp(stamps, text):
    (stamps.folder / "stages" / "data.json").write_text(text)
    assert not stamps.valid("data", INPUTS)


def test_what_a_stage_made_changes_with_its_files(stamps):
    before = stamps.made("data")
    (stamps.folder / "table").write_bytes(b"abcdefghij")
    stamps.write("data", INPUTS, [stamps.folder / "table"])
    assert stamps.made("data") != before != stamps.made("never ran")


def test_digest_tells_values_apart():
    assert digest([1, 2]) != digest([2, 1])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
