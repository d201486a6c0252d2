"""Folders of shards as people have them: what is trained on, what is held out, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.data.loader import TokenLoader
from nanogpt2.data.shards import Shards, find_shards, natural, write_shard
from nanogpt2.data.tokenizer import Tokenizer, main, text_sample
from nanogpt2.errors import UserError
from nanogpt2.evals.held_out import held_out_batches

CASES = {
    "the last": (["b", "a", "c"], ["a", "b"], ["c"]),
    "numbers": ([f"shard_{i}" for i in range(12)], [f"shard_{i}" for i in range(11)], ["shard_11"]),
    "the records' names": (
        ["shard_06542", "shard_00010", "shard_00009"],
        ["shard_00009", "shard_00010"],
        ["shard_06542"],
    ),
    "the hub's names": (
        ["test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"]
        + ["validation-00001-of-00002", "validation-00000-of-00002"],
        ["train-00000-of-00002", "train-00001-of-00002"],
        ["validation-00000-of-00002", "validation-00001-of-00002"],
    ),
    "test alone": (["a", "test", "z"], ["a", "z"], ["test"]),
    "glued": (["Train1", "Train2", "Val1"], ["Train1", "Train2"], ["Val1"]),
    "inside": (["web_val_000", "web_train_001", "web_train_000"],)
    + (["web_train_000", "web_train_001"], ["web_val_000"]),
    "no such words": (["latest", "contest", "value"], ["contest", "latest"], ["value"]),
    "all for training": (["train-0", "train-1"], ["train-0"], ["train-1"]),
    "folders": (
        ["train/s0", "train/s1", "val/s0", "test/s0"],
        ["train/s0", "train/s1"],
        ["val/s0"],
    ),
    "folders, other words": (
        ["Training/a", "dev/a", "valid/b"],
        ["Training/a"],
        ["dev/a", "valid/b"],
    ),
    "the folder's name counts first": (
        ["train/test-0", "validation/train-0"],
        ["train/test-0"],
        ["validation/train-0"],
    ),
    "Spark": (
        ["s1.parquet/part-0001.snappy", "s1.parquet/part-0000.snappy", "s0.parquet/part-0000"],
        ["s0.parquet/part-0000", "s1.parquet/part-0000.snappy"],
        ["s1.parquet/part-0001.snappy"],
    ),
    "Spark, one folder, by language": (
        ["all.parquet/lang=de/part-0", "all.parquet/lang=en/part-0"],
        ["all.parquet/lang=de/part-0"],
        ["all.parquet/lang=en/part-0"],
    ),
    "Spark, named": (
        ["train.parquet/part-0", "test.parquet/part-0", "test.parquet/part-1"],
        ["train.parquet/part-0"],
        ["test.parquet/part-0", "test.parquet/part-1"],
    ),
    "other runs below": (["a", "b", "run/data/z", "old/train/z"], ["a"], ["b"]),
    "hidden": (
        ["a", "b", ".c", "_d", "train/.e", "x.parquet/_temporary/0/f", "x.parquet/.g"]
        + ["x.parquet/part-0"],
        ["a", "b"],
        ["x.parquet/part-0"],
    ),
    "spaces and letters": (["ein Büchlein 2", "ein Büchlein 10"],)
    + (["ein Büchlein 2"], ["ein Büchlein 10"]),
}


def make(folder: Path, names: list[str], ending: str = ".parquet") -> Path:
    """Shards of one document each, which is the shard's own name."""
    for name in names:
        write_shard(folder / f"{name}{ending}", [name])
    return folder


def names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix().removesuffix(".parquet") for path in paths]


@pytest.mark.parametrize("case", CASES)
def test_what_is_trained_on_and_what_is_held_out(tmp_path: Path, case: str):
    given_names, train, held_out = CASES[case]
    shards = find_shards(make(tmp_path, given_names))
    assert (names(tmp_path, shards.train), names(tmp_path, shards.held_out)) == (train, held_out)
    assert shards.files == [*shards.train, *shards.held_out]


def test_any_case_of_the_ending(tmp_path: Path):
    make(tmp_path, ["a"], ".PARQUET")
    make(tmp_path, ["b"], ".Parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "README.md").touch()
    assert [path.name for path in find_shards(tmp_path).files] == ["a.PARQUET", "b.Parquet"]


@given(st.lists(st.integers(0, 10**9), unique=True), st.sampled_from(["shard_{}", "{}-x", "a{}b7"]))
def test_numbers_sort_as_numbers_and_padded_names_as_text(numbers: list[int], form: str):
    def ordered(written: list[str]) -> list[str]:
        return sorted(written, key=lambda name: natural(Path("d") / name, Path("d")))

    assert ordered([form.format(n) for n in numbers]) == [form.format(n) for n in sorted(numbers)]
    padded = [form.format(f"{n:010}") for n in numbers]
    assert ordered(padded) == sorted(padded)


def test_one_sentence_says_what_is_held_out_and_why(tmp_path: Path):
    def said(*files: str) -> str:
        folder = make(tmp_path / str(len(files)), list(files))
        return find_shards(folder).describe().removeprefix(f"{folder}: ")

    assert said("a", "b") == (
        "1 file to train on; held out: b.parquet "
        "(the last in order; no name says validation or test)"
    )
    assert said("a", "b", "test/c") == (
        "2 files to train on; held out: test/c.parquet (named as test, and none as validation)"
    )
    assert said("a", "test", *(f"val{i}" for i in range(5))) == (
        "1 file to train on; held out: val0.parquet, val1.parquet, val2.parquet and 2 more "
        "(named as validation); left alone: test.parquet"
    )


@pytest.mark.parametrize(
    ("files", "where", "words"),
    [
        ([], "nowhere", "does not exist; give a folder"),
        (["a"], "a.parquet", "is a file; give a folder"),
        ([], ".", "holds 0 parquet files and needs at least 2"),
        (["a"], ".", "holds 1 parquet file and needs at least 2"),
        (["a", "data/b", "data/c"], ".", "data holds 2: give that folder"),
        (["data/train/b", "data/val/c"], ".", "data holds 2: give that folder"),
        (["train/a", "val/b"], "train", "there are others beside it: give"),
        ([".a", "_b"], ".", r"begin with . or _ do not count \(2 here"),
        (["test-0", "val/a"], ".", "named as validation or test.*into a folder 'train'"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, files: list[str], where: str, words: str):
    make(tmp_path, files)
    with pytest.raises(UserError, match=words):
        find_shards(tmp_path / where)


def test_what_only_looks_like_a_shard_is_told(tmp_path: Path):
    make(tmp_path, ["a", "b"])
    (tmp_path / "c.parquet").mkdir()
    (tmp_path / "c.parquet" / "_SUCCESS").touch()
    with pytest.raises(UserError, match="c.parquet is a folder without parquet files"):
        find_shards(tmp_path)
    (tmp_path / "c.parquet" / "d.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="d.parquet is a link to nothing; mend the link"):
        find_shards(tmp_path)
    (tmp_path / "gone").mkdir()
    with pytest.raises(UserError, match="c.parquet is a folder without parquet files"):
        find_shards(tmp_path)


def letters() -> Tokenizer:
    return Tokenizer.train(["a b c d e f g h "] * 9, 266)


def test_every_held_out_file_is_measured_in_order_and_none_is_trained_on(tmp_path: Path):
    texts = {"train-0": "aaaaaaa", "val/1": "bbb", "val/2": "ccc", "val/10": "ddd", "test": "eeee"}
    for name, text in texts.items():
        write_shard(tmp_path / f"{name}.parquet", [text])
    tokenizer = letters()
    (inputs, targets), *rest = held_out_batches(tmp_path, tokenizer, 100, 1, 11)
    row = [*inputs[0].tolist(), targets[0, -1].item()]
    assert not rest and tokenizer.decode([t for t in row if t != tokenizer.bos_id]) == "bbbcccddd"
    assert set("".join(text_sample(find_shards(tmp_path).train, 1000))) == {"a"}
    trained = next(iter(TokenLoader(tmp_path, tokenizer, 2, 11)))[0]
    assert set(tokenizer.decode(trained.flatten().tolist()).replace("<|bos|>", "")) == {"a"}


def test_a_million_spaces_in_a_document_end_no_run(tmp_path: Path):
    table = "A table follows." + " " * 1_100_000 + "end"
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.parquet", [table, "after it"])
    tokenizer = letters()
    assert next(iter(TokenLoader(tmp_path, tokenizer, 4, 64, buffer_size=2)))[0].shape == (4, 64)
    assert next(held_out_batches(tmp_path, tokenizer, 640, 2, 64))[0].shape == (1, 64)


def test_the_tokenizer_says_what_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("train/a", "dev/a"):
        write_shard(tmp_path / "data" / f"{name}.parquet", ["some words and other words"] * 9)
    out = ["--out", str(tmp_path / "tokenizer"), "--vocab-size", "270"]
    main(["--data", str(tmp_path / "data"), *out])
    said = capsys.readouterr().out
    assert "1 file to train on; held out: dev/a.parquet (named as validation)" in said


def test_a_description_needs_no_disk():
    folder = Path("d")
    shards = Shards(folder, [folder / "a"], [folder / "b" / "c"], "because")
    assert shards.describe() == "d: 1 file to train on; held out: b/c (because)"
