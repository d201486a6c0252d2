"""Text as people have it becomes shards: nothing lost, nothing twice, nothing half-way."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanogpt2.data import cleaning
from nanogpt2.data.cleaning import Progress, Rules
from nanogpt2.data.documents import LONGEST, documents, find_sources
from nanogpt2.data.prepare import identity_of, prepare
from nanogpt2.data.shards import find_shards, open_shard, read_documents, write_shard
from nanogpt2.errors import UserError

TEXTS = [f"Document number {n} tells of mill {n * n}." for n in range(40)]


def kept(folder: Path) -> list[str]:
    return [text for path in find_shards(folder).files for text in read_documents(path)]


def write(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


LINES = "\n".join(json.dumps({"id": n, "story": t}) for n, t in enumerate(TEXTS)).encode()
CSV = b"id;body\n" + "".join(f'{n};"{t}"\n' for n, t in enumerate(TEXTS)).encode()


def arrow(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": texts})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def parquet(texts: list[str], column: str = "content") -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": range(len(texts)), column: texts}), sink)
    return sink.getvalue().to_pybytes()


FILES = {
    "a.txt": "<|endoftext|>".join(TEXTS).encode(),
    "a.txt.gz": gzip.compress("<|endoftext|>".join(TEXTS).encode()),
    "utf16.txt": "<|endoftext|>".join(TEXTS).encode("utf-16"),
    "a.jsonl": LINES,
    "a.jsonl.xz": lzma.compress(LINES),
    "a.ndjson.bz2": bz2.compress(LINES),
    "a.jsonl.zst": pa.compress(LINES, "zstd", asbytes=True),
    "list.json": json.dumps(TEXTS, indent=1).encode(),
    "a.csv": CSV,
    "a.tsv": CSV.replace(b";", b"\t"),
    "a.parquet": parquet(TEXTS),
    "data-00000-of-00001.arrow": arrow(TEXTS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_its_documents(tmp_path: Path, name: str) -> None:
    done = prepare(write(tmp_path / "in", name, FILES[name]), tmp_path / "out")
    assert sorted(kept(tmp_path / "out")) == sorted(TEXTS)
    assert (done.read, done.kept) == (40, 40)


def test_a_folder_of_prose_with_what_lies_beside_it(tmp_path: Path) -> None:
    for n, text in enumerate(TEXTS):
        name = "dev diary" if n == 7 else f"chapter {n}"
        write(tmp_path / "in" / str(n % 3), f"{name}.md", text.encode())
    write(tmp_path / "in", "README.md", b"What is in this folder, for people.")
    write(tmp_path / "in", "cover.png", b"\x89PNG")
    found, left = find_sources([tmp_path / "in"])
    assert len(found) == 40 and [path.name for path in left] == ["cover.png"]
    assert {source.split for source in found} == {"train"}, "a document's name is its author's"
    prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(kept(tmp_path / "out")) == sorted(TEXTS)


def test_names_of_splits_hold_out_what_they_say(tmp_path: Path) -> None:
    for name, texts in (("train", TEXTS[:30]), ("valid", TEXTS[30:36]), ("test", TEXTS[36:])):
        write(tmp_path / "in", f"stories-{name}.txt", "<|endoftext|>".join(texts).encode())
    done = prepare(tmp_path / "in", tmp_path / "out")
    shards = find_shards(tmp_path / "out")
    held_out = [text for path in shards.held_out for text in read_documents(path)]
    assert sorted(held_out) == sorted(TEXTS[30:36])
    assert done.drops["left-over test"] == 4


def held_out(folder: Path) -> list[str]:
    return [text for path in find_shards(folder).held_out for text in read_documents(path)]


def test_folders_that_all_name_a_split_are_taken_at_their_word(tmp_path: Path) -> None:
    for name, texts in (("train", TEXTS[:30]), ("validation", TEXTS[30:])):
        write(tmp_path / "in" / name, "part.txt", "<|endoftext|>".join(texts).encode())
    prepare([tmp_path / "in" / "train", tmp_path / "in" / "validation"], tmp_path / "out")
    assert sorted(held_out(tmp_path / "out")) == sorted(TEXTS[30:])
    found, _ = find_sources(
        [tmp_path / "in" / "validation", write(tmp_path / "mine", "a.txt", b"")]
    )
    assert {source.split for source in found} == {"train"}, "a folder may be called anything"


def test_a_left_over_test_makes_nothing_else_a_duplicate(tmp_path: Path) -> None:
    parts = {"test": TEXTS[20:], "train": TEXTS[:21], "validation": TEXTS[30:]}
    for name, texts in parts.items():
        write(tmp_path / "in", f"{name}.txt", "<|endoftext|>".join(texts).encode())
    done = prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(held_out(tmp_path / "out")) == sorted(TEXTS[30:])
    assert sorted(kept(tmp_path / "out")) == sorted(TEXTS[:21] + TEXTS[30:])
    assert done.drops["left-over test"] == 20 and sum(done.drops.values()) == 20


def test_linked_folders_are_read_once_and_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "b.txt", TEXTS[1].encode())
    folder = write(tmp_path / "in", "a.txt", TEXTS[0].encode())
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    assert [source.path.name for source in find_sources([folder])[0]] == ["a.txt", "b.txt"]
    (folder / "c.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="c.txt is a link to nothing"):
        find_sources([folder])


def test_half_a_character_in_json_costs_that_character_alone(tmp_path: Path) -> None:
    line = json.dumps({"text": "Ein sch\u00f6ner Tag, \u6771\u4eac: HALF"}).encode()
    lines = [line.replace(b"HALF", b"\\ud83d"), *(json.dumps({"text": t}).encode() for t in TEXTS)]
    done = prepare(write(tmp_path / "in", "a.jsonl", b"\n".join(lines)), tmp_path / "out")
    assert "Ein sch\u00f6ner Tag, \u6771\u4eac: \ufffd" in kept(tmp_path / "out")
    assert done.recoded == 0


raw = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60),
    st.sampled_from(["", "  \n", "short", "caf\u00e9 " * 9, TEXTS[0], TEXTS[1], "nul \0 " * 9]),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(raw, min_size=1, max_size=30), st.integers(1, 4))
def test_documents_in_are_documents_out_and_counted_drops(
    tmp_path_factory: pytest.TempPathFactory, given: list[str | bytes], some: int
) -> None:
    folder = tmp_path_factory.mktemp("prepare")
    values = [v.encode("utf-8", "surrogatepass") if isinstance(v, str) else v for v in given]
    values += [text.encode() for text in TEXTS]
    for n in range(some):
        (folder / "in").mkdir(exist_ok=True)
        table = pa.table({"text": pa.array(values[n::some], pa.binary())})
        array = table["text"].combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = array.chunk(0)
        strings = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
        pq.write_table(pa.table({"text": strings}), folder / "in" / f"{n}.parquet")
    done = prepare(folder / "in", folder / "out")
    texts = kept(folder / "out")
    assert done.read == len(values)
    assert done.read == done.kept + sum(done.drops.values())
    assert len(texts) == len(set(texts)) == done.kept
    assert sum(map(len, texts)) == done.characters
    assert set(TEXTS) <= set(texts)
    assert sum(done.histogram.values()) == done.kept


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(20, 400), min_size=60, max_size=200), st.floats(0.02, 0.4))
def test_the_share_is_held_out_within_a_document(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], share: float
) -> None:
    folder = tmp_path_factory.mktemp("held")
    texts = [f"{n:<5}".ljust(size, "x") for n, size in enumerate(sizes)]
    done = prepare(texts, folder / "out", Rules(held_out=share))
    wanted = max(share * done.characters, min(cleaning.LEAST_HELD_OUT, done.characters / 10))
    # those of more than twice the mean are passed over, and made up for by the next
    assert abs(done.held_out_characters - wanted) <= 2 * max(sizes)


@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_long_prose_is_cut_at_paragraphs_and_nothing_is_lost(tmp_path: Path, line: str) -> None:
    lines = line.join(["caf\u00e9 " * 9] * 10)
    whole = (line * 2).join(f"Paragraph {n}: {lines}" for n in range(700))
    write(tmp_path / "in", "book.txt", whole.encode())
    (source,), _ = find_sources([tmp_path / "in"])
    parts = [part for part, _ in documents(source)]
    assert b"".join(parts).decode() == whole  # type: ignore[arg-type]
    assert max(map(len, parts)) <= LONGEST and len(parts) > 3  # type: ignore[arg-type]
    start = f"{line}{line}Paragraph".encode()
    assert all(part.startswith(start) for part in parts[1:])  # type: ignore[union-attr]


def test_an_old_encoding_is_read_and_counted(tmp_path: Path) -> None:
    texts = [f"Une cr\u00e8me br\u00fbl\u00e9e, num\u00e9ro {n}".encode("cp1252") for n in range(9)]
    for n, text in enumerate(texts):
        write(tmp_path / "in", f"{n}.txt", text)
    done = prepare(tmp_path / "in", tmp_path / "out")
    assert done.recoded == 9
    assert "Une cr\u00e8me br\u00fbl\u00e9e, num\u00e9ro 3" in kept(tmp_path / "out")


def test_row_groups_for_many_ranks(tmp_path: Path) -> None:
    prepare([f"{n} and so on, and so forth" for n in range(2000)], tmp_path / "out")
    for path in find_shards(tmp_path / "out").train:
        assert open_shard(path).num_row_groups >= 60


def test_the_same_call_does_nothing_again_and_other_rules_do(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.jsonl", LINES)
    first = prepare(tmp_path / "in", tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert prepare(tmp_path / "in", tmp_path / "out") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    assert prepare(tmp_path / "in", tmp_path / "out", Rules(min_chars=36)).kept < 40


KILLED = """
import os, sys
from pathlib import Path
from nanogpt2.data import prepare as module
module.PART, module.SHARD = 2_000, 5_000
wanted, seen = int(sys.argv[3]), 0
for name in ("_write_part", "write_shard"):
    def dying(*values, work=getattr(module, name)):
        global seen
        work(*values)
        seen += 1
        if seen == wanted:
            os._exit(9)
    setattr(module, name, dying)
module.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def run_killed(source: Path, out: Path, after: int) -> int:
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(after)]
    return subprocess.run(command, env=os.environ, check=False).returncode


def test_a_killed_call_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    texts = [f"Text {n} of them, {n % 150 * 'x'}" for n in range(300)] + TEXTS * 2
    for n in range(3):
        lines = "\n".join(json.dumps({"text": text}) for text in texts[n::3])
        write(tmp_path / "in", f"{n}.jsonl", lines.encode())
    assert run_killed(tmp_path / "in", tmp_path / "whole", -1) == 0
    assert run_killed(tmp_path / "in", tmp_path / "out", 4) == 9  # in the first pass
    assert not (tmp_path / "out").exists()
    assert run_killed(tmp_path / "in", tmp_path / "out", 10) == 9
    last = 4
    while run_killed(tmp_path / "in", tmp_path / "out", last):  # and in the second
        last += 1
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["in", "out", "whole"]


MISTAKES = {
    "empty": ({}, "there are no documents"),
    "pictures": ({"a.png": b"x"}, "there are no documents"),
    "numbers": ({"a.csv": b"a,b\n1,2\n"}, "have|at least 2"),
    "torn": ({"a.jsonl": LINES[:-5]}, "line 40 of .* is no JSON"),
    "cut": ({"a.txt.gz": gzip.compress(b"word " * 999)[:-9]}, "cannot be read"),
    "no parquet": ({"a.parquet": b"PAR1 and no more"}, "not a readable parquet file"),
    "one": ({"a.txt": TEXTS[0].encode()}, "at least 2"),
    "bare commas": (
        {"a.csv": b"text\nHello, world\n"},
        "row 1 of .* has 2 fields .* its head has 1",
    ),
    "messages": (
        {"a.jsonl": b'{"id": "chat-1", "messages": [{"role": "user", "content": "Good day!"}]}'},
        "most of its text in 'messages'",
    ),
    "a list": (
        {"a.jsonl": b'{"text": "one whole text"}\n{"text": ["a", "b"]}'},
        "is a list of JSON",
    ),
    "no text": ({"a.jsonl": b'{"n": 1}\n{"n": 2}\n'}, "has no text"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    files, sentence = MISTAKES[name]
    (tmp_path / "in").mkdir()
    for file, content in files.items():
        write(tmp_path / "in", file, content)
    with pytest.raises(UserError, match=sentence) as caught:
        prepare(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_the_users_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.jsonl", LINES)
    write(tmp_path / "out", "diary.txt", b"mine")
    with pytest.raises(UserError, match="did not make"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match="lies in"):
        prepare(tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(UserError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(UserError, match="no text in column 'body'"):
        prepare(tmp_path / "in", tmp_path / "new", Rules(column="body"))


def test_the_summary_says_what_was_done() -> None:
    progress = Progress(read=10, kept=7, characters=700, held_out=1, held_out_characters=70)
    progress.drops |= {"duplicate": 2, "empty": 1}
    progress.histogram = {"6": 5, "7": 2}
    progress.samples = [["ab", "The first words"]]
    text = "\n".join(progress.describe())
    assert "10 documents read, 7 kept (700 characters)" in text
    assert "1 empty, 2 duplicate" in text
    assert "10.0% of the characters" in text
    assert "The first words" in text


def test_one_long_document_does_not_become_what_is_measured(tmp_path: Path) -> None:
    texts = [f"{n:<5}".ljust(300, "x") for n in range(400)]
    texts[200] = "a" + " " * 1_100_000 + "b"
    done = prepare(texts, tmp_path / "out")
    assert done.kept == 400
    assert 0 < done.held_out_characters < 1_000_000 and done.held_out > 10


def test_what_is_half_done_touches_nothing_that_was_there(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.jsonl", LINES)
    work = tmp_path / ".out.preparing"
    write(work, "diary.txt", b"mine")
    with pytest.raises(UserError, match="move it away"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in work.iterdir()] == ["diary.txt"]


def test_a_second_call_leaves_the_first_at_work(tmp_path: Path) -> None:
    write(tmp_path / "in", "a.jsonl", LINES)

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(UserError, match="at work"):
            prepare(tmp_path / "in", tmp_path / "out")

    assert prepare(tmp_path / "in", tmp_path / "out", told=meanwhile).kept
    assert not (tmp_path / ".out.preparing").exists()


def test_other_texts_of_the_same_number_are_other_sources() -> None:
    assert identity_of(["one", "two"]) != identity_of(["one", "three"])
    assert identity_of(["one", "two"]) == identity_of(["one", "two"])


def test_a_text_that_was_mended_half_way_leaves_nothing_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", "a.jsonl", LINES.replace(b"tells", b"told"))

    def stopped(*given: object) -> None:
        write_shard(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nanogpt2.data.prepare.write_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / ".out.preparing").glob("*.parquet"))
    write(tmp_path / "in", "a.jsonl", LINES)
    prepare(tmp_path / "in", tmp_path / "out")
    assert sorted(kept(tmp_path / "out")) == sorted(TEXTS)


def test_a_full_disk_is_one_sentence_and_the_call_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", "a.jsonl", LINES)

    def full(*given: object) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("nanogpt2.data.prepare._is_new", full)
        with pytest.raises(UserError, match="disk I/O error.*free some space"):
            prepare(tmp_path / "in", tmp_path / "out")
    assert prepare(tmp_path / "in", tmp_path / "out").kept == 40

    notes = tmp_path / ".new.preparing" / "seen.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr("nanogpt2.data.prepare._is_new", full)
        with pytest.raises(UserError):
            prepare(tmp_path / "in", tmp_path / "new")
    notes.write_bytes(b"no database" * 99)
    with pytest.raises(UserError, match="delete that folder to begin anew"):
        prepare(tmp_path / "in", tmp_path / "new")


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9")
    assert prepare(write(tmp_path / "in", "a.jsonl", LINES), out).kept == 40
    assert sorted(kept(out)) == sorted(TEXTS)
