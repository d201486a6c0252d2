"""Documents in files as people have them: prose, tables, lines of JSON, compressed or not.

A file is read piece by piece, whatever its size, and gives one document after another as bytes or
text, unchanged; ``prepare`` cleans them. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanogpt2.data.shards import COLUMN, SPLIT_OF, is_text, natural, split_named, unreadable
from nanogpt2.errors import UserError, explain
from nanogpt2.files import LARGEST_TEXT

PROSE = (".txt", ".text", ".md", ".markdown", ".rst")
OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda raw: io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw), "zstd")),
}
BESIDE = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog)(\..*)?|(dataset_infos?|dataset_dict|state)\.json"
    r"|cache-.*\.arrow",
    re.IGNORECASE,
)
"""files that come with data and are none"""
SEPARATOR = "<|endoftext|>"
LONGEST = 100_000
"""bytes of a document of prose; a longer one is cut where a paragraph ends"""
PIECE = 1 << 20
SAMPLE = 100
"""rows that are looked at to choose a column"""
BROKEN = (
    pa.ArrowException, OSError, EOFError, lzma.LZMAError, zlib.error, csv.Error, UnicodeError,
    ValueError, RecursionError,
)  # fmt: skip
Raw = bytes | str | None


@dataclass(frozen=True)
class Source:
    """A file of documents, or texts that are at hand."""

    path: Path
    kind: str
    """its suffix, that of a compression aside"""
    split: str = "train"
    """what its name says it is for"""
    texts: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size if self.kind else len(self.texts)

    def identity(self) -> list[Any]:
        """Plain values that change when the source does."""
        if not self.kind:
            texts = json.dumps(list(self.texts)).encode()
            return [hashlib.sha256(texts).hexdigest(), len(self.texts)]
        status = self.path.stat()
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]


def find_sources(places: Iterable[Path | str]) -> tuple[list[Source], list[Path]]:
    """The sources in files and folders, in natural order; and the files that were left alone.

    A ``Path`` is a file or a folder, with all that is below it; a string is a document itself.
    Raises UserError where a place does not exist, is a file of another kind, holds none, or holds a
    link to nothing.
    """
    places = list(places)
    texts = [place for place in places if isinstance(place, str)]
    found = [Source(Path("the list of texts"), "", texts=texts)] if texts else []
    left: list[Path] = []
    folders = [place for place in places if isinstance(place, Path) and place.is_dir()]
    # of several folders the names count, if every one of them says what it is for
    named = len(folders) > 1 and all(_telling(folder.resolve().name) for folder in folders)
    for place in places:
        if isinstance(place, str):
            continue
        if not place.exists():
            raise UserError(f"{place} does not exist; name a file or a folder of documents")
        files = sorted(_below(place), key=lambda path: natural(path, place))
        known = [path for path in files if _kind(path)]
        if place.is_file() and not known:
            raise UserError(f"{place} is no file of documents that is known here; give {KNOWN}")
        tables = [path for path in known if _kind(path) not in PROSE]
        prose = [path for path in known if _kind(path) in PROSE]
        # the name of a document is its author's, unless every one of them says what it is for
        told = all(_telling(path.name) for path in prose)
        for path in tables + prose:
            whole = path in tables or told
            name = path.relative_to(place) if path != place else Path(path.name)
            if named and path != place:
                name = place.resolve().name / name
            where = (name if whole else name.parent).as_posix()
            found.append(Source(path, _kind(path), split_named(where)))
        left += [path for path in files if not _kind(path)]
    if not found:
        others = f" (it holds {left[0].name})" if left else ""
        where = ", ".join(map(str, places)) or "an empty list"
        raise UserError(f"there are no documents in {where}{others}; give {KNOWN}")
    return found, left


def _below(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    been: set[str] = set()

    def refuse(error: OSError) -> None:  # a folder that may not be read
        raise error

    for folder, below, names in os.walk(place, onerror=refuse, followlinks=True):
        below[:] = [name for name in below if not name.startswith((".", "_"))]
        if (real := os.path.realpath(folder)) in been:  # links may lead in a circle
            below.clear()
            continue
        been.add(real)
        for path in (Path(folder, name) for name in names):
            if path.name.startswith((".", "_")) or BESIDE.fullmatch(path.name):
                continue
            if path.is_symlink() and not path.exists():
                raise UserError(f"{path} is a link to nothing; mend the link, or take it out")
            if path.is_file():
                yield path


def _telling(name: str) -> bool:
    return any(word in SPLIT_OF for word in re.findall(r"[^\W\d_]+", name.lower()))


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in (*PROSE, *TABLES) else ""


def documents(
    source: Source, column: str | None = None, separator: str = SEPARATOR
) -> Iterator[tuple[Raw, int]]:
    """Each document of ``source``, and how many of its bytes (texts) are read by then.

    ``column``: of a table; None: the one named text, else the one of the longest strings.
    Raises UserError where the file is damaged, or has no column of text.
    """
    if not source.kind:
        yield from ((text, n) for n, text in enumerate(source.texts, 1))
        return
    path = source.path
    try:
        with path.open("rb") as raw:
            if source.kind in (".parquet", ".arrow"):
                yield from TABLES[source.kind](raw, path, column)
                return
            open_packed = OPENERS.get(path.suffix.lower())
            file = open_packed(raw) if open_packed else raw
            if source.kind in PROSE:
                found: Iterable[Raw] = _prose(file, separator.encode())
            else:
                found = _of_rows(TABLES[source.kind](file, path), path, column)
            for document in found:
                yield document, raw.tell()
    except UserError:
        raise
    except BROKEN as error:
        if explain(error) is not None:
            raise
        if source.kind == ".parquet":
            raise unreadable(path, error) from None
        what = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(
            f"{path} cannot be read as {source.kind} ({what}); mend it, or take it out"
        ) from None


# Prose


def _prose(file: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Documents between separators, cut where they are too long."""
    rest = b""
    for piece in _utf8_pieces(file):
        *whole, rest = (rest + piece).split(separator) if separator else (rest + piece,)
        for document in whole:
            yield from _cut(document)
        while len(rest) > 2 * LONGEST:
            first = next(_cut(rest))
            yield first
            rest = rest[len(first) :]
    yield from _cut(rest)


def _utf8_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Pieces of the file; one that begins with UTF-16's mark is recoded."""
    first = file.read(PIECE)
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        decoder = codecs.getincrementaldecoder("utf-16")()
        for piece in chain([first], iter(lambda: file.read(PIECE), b"")):
            yield decoder.decode(piece).encode("utf-8", "replace")
        return
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from iter(lambda: file.read(PIECE), b"")


def _cut(document: bytes) -> Iterator[bytes]:
    """Parts of at most ``LONGEST`` bytes that make up the document."""
    at = 0
    while len(document) - at > LONGEST:
        end = at + LONGEST
        marks = (b"\n\n", b"\r\n\r\n", b"\n", b" ")
        ends = (document.rfind(mark, at + LONGEST // 2, end) for mark in marks)
        cut = next((place for place in ends if place > 0), end)
        while cut > at + 1 and document[cut] & 0xC0 == 0x80:  # within a character
            cut -= 1
        yield document[at:cut]
        at = cut
    yield document[at:]


# Tables


def _of_rows(rows: Iterator[dict[str, Any] | str], path: Path, column: str | None) -> Iterator[Raw]:
    """The column of text of rows as dictionaries; a row that is a string is its own document."""
    first = list(islice(rows, SAMPLE))
    tables = [row for row in first if isinstance(row, dict)]
    name = _choose(tables, path, column) if tables else ""
    for row in chain(first, rows):
        value = row.get(name) if isinstance(row, dict) else row
        if isinstance(value, (dict, list)):
            raise UserError(
                f"a document in {path} is a {type(value).__name__} of JSON; write it as one string"
            )
        yield value if isinstance(value, str) or value is None else str(value)


def _choose(rows: Sequence[dict[str, Any]], path: Path, column: str | None) -> str:
    """The column with the documents."""
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    length = {n: sum(len(r[n]) for r in rows if isinstance(r.get(n), str)) for n in names}
    chosen = column or (COLUMN if length.get(COLUMN) else max(names, key=length.get, default=""))  # type: ignore[arg-type]
    if not length.get(chosen):
        of = "" if column is None else f" in column {column!r}"
        raise UserError(
            f"{path} has no text{of} (columns of text: {', '.join(names) or 'none'}); name the "
            "column with the documents (--column), or take the file out"
        )
    inside = {name: sum(_letters(row.get(name)) for row in rows) for name in names}
    longest = max(names, key=inside.__getitem__)
    if column is None and chosen != COLUMN and inside[longest] > length[chosen]:
        raise UserError(
            f"{path} has most of its text in {longest!r}, in lists or objects; write each document "
            "as one string, or name a column of strings (--column)"
        )
    return chosen


def _letters(value: Any) -> int:
    """Characters of all strings in a value of JSON."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_letters, parts)) if isinstance(value, (dict, list)) else 0


def _csv(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    head = text.readline()
    delimiter = "\t" if _kind(path) == ".tsv" else max(",;\t|", key=head.count)
    names = next(csv.reader([head], delimiter=delimiter), [])
    try:
        for number, row in enumerate(csv.reader(text, delimiter=delimiter), 1):
            if any(row[len(names) :]):
                raise UserError(
                    f"row {number} of {path} has {len(row)} fields and its head has {len(names)}; "
                    "put quotes around the texts, or take the file out"
                )
            yield dict(zip(names, row, strict=False))
    finally:
        text.detach()  # or it would close the file, of which is asked how far it was read


def _json(file: IO[bytes], path: Path) -> Iterator[Any]:
    """Lines of JSON; or one list, which is read as a whole."""
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            if line.lstrip().startswith(b"["):
                rest = file.read(LARGEST_TEXT)
                if len(rest) == LARGEST_TEXT:
                    raise UserError(
                        f"{path} is one list, too long to hold; write a line a document"
                    )
                yield from json.loads(line + rest)
                return
        if line.strip():
            try:
                row = json.loads(line.decode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise UserError(
                    f"line {number} of {path} is no JSON ({error}); mend it, or take the file out"
                ) from None
            if not isinstance(row, (dict, str)):
                raise UserError(f"line {number} of {path} is neither an object nor a string")
            yield row


def _columns(schema: pa.Schema, first: pa.Table, path: Path, column: str | None) -> str:
    """The column of a table of Arrow's kind."""
    texts = [field.name for field in schema if is_text(field.type)]
    if column is None and COLUMN in texts:
        return COLUMN
    return _choose(first.slice(0, SAMPLE).to_pylist(), path, column)


def _as_bytes(column: Any) -> list[bytes | None]:
    """Values of a column of any kind of string as they stand, whether UTF-8 or not."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return [None] * len(column)
    found: list[bytes | None] = column.cast(pa.binary()).to_pylist()
    return found


def _parquet(raw: IO[bytes], path: Path, column: str | None) -> Iterator[tuple[Raw, int]]:
    file, size = pq.ParquetFile(raw), path.stat().st_size
    rows, seen = file.metadata.num_rows, 0
    if not rows:
        return
    first = pa.Table.from_batches([next(file.iter_batches(SAMPLE))])
    name = _columns(file.schema_arrow, first, path, column)
    for batch in file.iter_batches(1024, columns=[name]):
        for value in _as_bytes(batch.column(0)):
            seen += 1
            yield value, size * seen // rows


def _arrow(raw: IO[bytes], path: Path, column: str | None) -> Iterator[tuple[Raw, int]]:
    """Arrow's stream, as Hugging Face's ``save_to_disk`` writes it, or its file."""
    is_file = raw.read(6) == b"ARROW1"
    raw.seek(0)
    if is_file:
        reader = pa.ipc.open_file(raw)
        batches: Iterator[pa.RecordBatch] = map(reader.get_batch, range(reader.num_record_batches))
    else:
        reader = batches = pa.ipc.open_stream(raw)
    name = ""
    for batch in batches:
        name = name or _columns(reader.schema, pa.Table.from_batches([batch]), path, column)
        for value in _as_bytes(batch.column(reader.schema.get_field_index(name))):
            yield value, raw.tell()


TABLES: dict[str, Callable[..., Any]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
}
KNOWN = "txt, md, jsonl, json, csv, tsv, parquet or arrow files (.gz, .bz2, .xz, .zst too)"
