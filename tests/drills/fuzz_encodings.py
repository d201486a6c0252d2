"""Texts as people have them: bytes that are no UTF-8, very long blanks, columns of other types."""

from __future__ import annotations

import codecs
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanogpt2.data.long_runs import LONG
from nanogpt2.data.shards import read_documents
from nanogpt2.data.tokenizer import Tokenizer
from tests.drills.fuzz_locales import ODDER
from tests.drills.fuzz_readers import READERS, Act

BLANKS = (" ", "\t", "\n", "\u3000", " \n", "\x1c", "\u00a0", "\u2028", "\r\n")
BYTES = (
    b"plain",
    b"caf\xe9",
    b"\xff\xfe",
    "na\u00efve \u6771\u4eac".encode(),
    b"\xed\xa0\x80",
    b"",
)
BYTES += (b"\xf0\x9f", b"a\x00b", b"\xef\xbb\xbfmarked", b" " * 300)
VALUES: tuple[Any, ...] = ("text", None, 7, 1.5, b"bytes", ["a"], {"a": 1}, True)
TYPES = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view())


def _unchecked(g: random.Random) -> pa.Array:
    """A column of strings whose bytes nobody looked at."""
    rows = g.choices(BYTES, k=g.randint(1, 9))
    column = pa.array(rows, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers())


def _blanks(g: random.Random) -> pa.Array:
    """Long runs, about as long as those that are handled by themselves, or twice that."""
    runs = []
    for _ in range(g.randint(1, 2)):
        blank = g.choice(BLANKS)
        size = g.choice((1, 2)) * LONG + g.randint(-3, 3)
        runs.append(g.choice(("", "word", "\x1f")) + blank * (size // len(blank)))
    return pa.array([g.choice(("x", "\n", "")).join(runs) + g.choice(("", "end"))])


def _typed(g: random.Random) -> pa.Array:
    """Values of one kind, some of them missing."""
    values = [g.choice((g.choice(VALUES), None))] * g.randint(1, 5) + [None] * g.randint(0, 2)
    return pa.array(values)


def _spelled(g: random.Random) -> pa.Array:
    """Texts in each of the types that hold texts."""
    texts = [g.choice((None, "", "na\u00efve", "\U0001f642 " * 9)) for _ in range(g.randint(0, 9))]
    return pa.array(texts, pa.string()).cast(g.choice(TYPES))


COLUMNS = (_unchecked, _blanks, _typed, _spelled)


def _shard(seeds: Path, work: Path, g: random.Random) -> Act:
    """A shard of such a column: what is read of it is encoded and decoded without a loss."""
    column, path = g.choice(COLUMNS)(g), work / "a.parquet"
    names = g.choice((["text"], ["text"], ["text", "id"], ["text", "text"], ["Text"]))
    table = pa.Table.from_arrays([column] * len(names), names)
    pq.write_table(table, path, row_group_size=g.randint(1, 4))
    tokenizer = Tokenizer.load(seeds / "tokenizer")

    def act() -> None:
        for text in read_documents(path):
            assert tokenizer.decode(tokenizer.encode(text)) == text
        if g.random() < 0.3:
            Tokenizer.train(read_documents(path), 266)

    return act


def _prompt(seeds: Path, work: Path, g: random.Random) -> Act:
    """A prompt with surrogates: it is read as if each that has no partner were U+FFFD."""
    text = "".join(g.choices(ODDER, k=g.randint(1, 9)))
    if g.random() < 0.1:
        text += " " * 2 * LONG + g.choice(ODDER)
    tokenizer = Tokenizer.load(seeds / "tokenizer")

    def act() -> None:
        wanted = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert tokenizer.decode(tokenizer.encode(text)) == wanted

    return act


SPELLINGS: tuple[Callable[[str], bytes], ...] = (
    lambda text: codecs.BOM_UTF8 + text.encode(),
    lambda text: codecs.BOM_UTF8 * 2 + text.encode(),
    lambda text: text.encode("utf-16"),
    lambda text: text.encode("utf-16-le"),
    lambda text: text.encode("utf-32"),
    lambda text: text.replace("\n", "\r\n").encode(),
    lambda text: text.replace("\n", "\r").encode(),
    lambda text: text.replace("a", "\u00e4", 1).encode("latin-1", "replace"),
    lambda text: text.encode() + b"\x1a",
)
"""what editors and other systems make of a file of text"""


def _respelled(seeds: Path, work: Path, g: random.Random) -> Act:
    """A text file of one of the readers, as another editor would save it."""
    kind = g.choice(("tokenizer", "tokenizer", "bundle", "config", "run", "settings"))
    shutil.copytree(seeds / kind, work, dirs_exist_ok=True)
    victim = g.choice(sorted(path for path in work.rglob("*") if path.is_file()))
    victim.write_bytes(g.choice(SPELLINGS)(victim.read_text(encoding="utf-8")))
    wanted = Tokenizer.load(seeds / "tokenizer").digest

    def act() -> None:
        READERS[kind](work)
        assert kind != "tokenizer" or Tokenizer.load(work).digest == wanted

    return act


def encodings(seeds: Path, work: Path, generator: random.Random) -> Act:
    """A shard, a prompt, or a file that was saved anew."""
    return generator.choice((_shard, _prompt, _respelled))(seeds, work, generator)
