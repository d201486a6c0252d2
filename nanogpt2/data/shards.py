"""Parquet shards with a ``text`` column: the one form in which documents reach the trainer.

``find_shards`` says which files of a folder are for training and which are held out, by their
names; where no name tells, the last file is held out, as in the records. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nanogpt2.errors import UserError
from nanogpt2.files import atomic_write, has_utf8_name, read_json

COLUMN = "text"
MIXTURE = "mixture.json"
"""in a folder whose shards lie in others: which they are, and by which weights they are read"""
LARGEST_ROW_GROUP = 4 * 2**30
"""bytes of text that are read at once, at most; the records' row groups have about 5 MB"""
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""the words in names of files and folders that tell what they are for"""
MAKE_AGAIN = "make it again, or fetch it again if it was downloaded"


@dataclass(frozen=True)
class Shards:
    """The parquet files of a data folder, by what they are for, each list in natural order."""

    folder: Path
    train: list[Path]
    held_out: list[Path]
    reason: str
    """why those files are held out"""
    unused: list[Path] = field(default_factory=list)
    """neither trained on nor measured: the test files where there are validation files as well"""
    weights: tuple[float, ...] = ()
    """of the sources of a mixture"""
    sources: list[int] = field(default_factory=list)
    """of a mixture: which source each training file is of"""

    @property
    def files(self) -> list[Path]:
        """All that is read: to train on, then held out."""
        return [*self.train, *self.held_out]

    def describe(self) -> str:
        """One sentence: which files are held out and why, and how many are trained on."""
        files = _counted(len(self.train), "file")
        unused = f"; left alone: {self._names(self.unused)}" if self.unused else ""
        held_out = self._names(self.held_out)
        return f"{self.folder}: {files} to train on; held out: {held_out} ({self.reason}){unused}"

    def name(self, path: Path) -> str:
        """``path`` as seen from the folder, with slashes; of a mixture's source, the whole path."""
        inside = path.is_relative_to(self.folder)
        return (path.relative_to(self.folder) if inside else path).as_posix()

    def _names(self, paths: list[Path]) -> str:
        names = [self.name(path) for path in paths[:3]]
        return ", ".join(names) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def find_shards(folder: Path | str) -> Shards:
    """What ``folder`` holds to train on, and what is held out of it.

    Its shards are the files named ``*.parquet`` in it and in its folders named train, validation,
    test (or one of their synonyms, ``SPLIT_OF``) or ``*.parquet``. Held out are those named
    validation, else those named test, else the last one; none of these is ever trained on.

    Raises UserError where there is nothing to train on, or nothing to hold out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; give a folder of parquet files (--data)")
    if (folder / MIXTURE).is_file():
        return _mixed(folder)
    files: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for path in sorted(_listed(folder), key=lambda path: natural(path, folder)):
        files[split_named(path.relative_to(folder).as_posix())].append(path)
    train, validation, test = files.values()
    if validation:
        return _checked(Shards(folder, train, validation, "named as validation", test))
    if test:
        return _checked(Shards(folder, train, test, "named as test, and none as validation"))
    reason = "the last in order; no name says validation or test"
    return _checked(Shards(folder, train[:-1], train[-1:], reason))


def _mixed(folder: Path) -> Shards:
    """The shards of a mixture: those of its sources, and held-out text of its own."""
    cure = "make the mixture again (the run's --data A:0.7 B:0.3)"
    record = read_json(folder / MIXTURE, cure)
    try:
        told = [(one["folder"], float(one["weight"])) for one in record["sources"]]
        parts = [((folder / place).resolve(), weight) for place, weight in told]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder / MIXTURE} is damaged; {cure}") from None
    if not all(0 < weight < math.inf for _, weight in parts):
        raise UserError(f"{folder / MIXTURE} has a weight that is not positive; {cure}")
    train = [find_shards(place).train for place, _ in parts]
    return Shards(
        folder,
        [path for files in train for path in files],
        [folder / "validation.parquet"],
        "of each source by its weight",
        weights=tuple(weight for _, weight in parts),
        sources=[n for n, files in enumerate(train) for _ in files],
    )


def _checked(shards: Shards) -> Shards:
    folder, found = shards.folder, len(shards.files) + len(shards.unused)
    if shards.train and shards.held_out:
        return shards
    if found > 1:
        raise UserError(
            f"every parquet file of {folder} is named as validation or test, so that none is left "
            "to train on; put those for training into a folder 'train' beside them"
        )
    raise UserError(
        f"{folder} holds {_counted(found, 'parquet file')} and needs at least 2: "
        f"the last one is for validation, the others are for training{_elsewhere(folder)}"
    )


def _elsewhere(folder: Path) -> str:
    """Where the files may be that ``folder`` itself lacks, as the end of a sentence."""
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and _seen(path)):
        if below.name.lower() not in SPLIT_OF and (count := _count(below)):
            return f"; {below} holds {count}: give that folder"
    above = folder.resolve().parent
    if folder.resolve().name.lower() in SPLIT_OF and _count(above) > 1:
        return f"; there are others beside it: give {above}"
    hidden = sum(_is_parquet(path) and not _seen(path) for path in folder.iterdir())
    return f"; names that begin with . or _ do not count ({hidden} here)" if hidden else ""


def _count(folder: Path) -> int:
    try:
        return len(list(_listed(folder)))
    except (UserError, OSError):  # not the folder that was asked for
        return 0


def _listed(folder: Path, named: bool = True) -> Iterator[Path]:
    """The parquet files of ``folder`` and, if ``named``, of its folders whose names say so."""
    for path in filter(_seen, folder.iterdir()):
        if _is_parquet(path):
            yield from _parts(path)
        elif named and path.name.lower() in SPLIT_OF and path.is_dir():
            yield from _listed(path, named=False)


def _parts(path: Path) -> list[Path]:
    """The file ``path``, or the part files of a folder of that name, as Spark writes them."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} is a link to nothing; mend the link, or take it out of the folder")
    files = [part for part in path.rglob("*") if _is_parquet(part) and not part.is_dir()]
    seen = [part for part in files if all(map(_seen, (part, *part.relative_to(path).parents)))]
    parts = [part for file in seen for part in _parts(file)]
    if not parts:
        raise UserError(f"{path} is a folder without parquet files; fill it, or move it elsewhere")
    return parts


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _seen(path: Path) -> bool:
    """False of hidden files, and of those that Spark and Hive write beside the data."""
    return not path.name.startswith((".", "_"))


def split_named(name: str) -> str:
    """What the first telling word in a shard's path within its folder says, else "train"."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "train")


def natural(path: Path, folder: Path) -> tuple[str, str]:
    """Sorts names with the numbers in them as numbers: shard_9 before shard_10."""
    name = path.relative_to(folder).as_posix()
    return re.sub("[0-9]+", lambda number: number[0].zfill(20), name), name


def open_shard(path: Path | str) -> pq.ParquetFile:
    """Open and check a shard; UserError says what is wrong with it."""
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is not a readable parquet file (it is empty); {MAKE_AGAIN}")
        file = pq.ParquetFile(_source(path))
        schema = file.schema_arrow
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {MAKE_AGAIN}") from None
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise unreadable(path, error) from None
    _check_column(path, schema)
    return file


def _source(path: Path) -> Path | BinaryIO:
    """What pyarrow can open: it spells names in UTF-8, and others are opened here."""
    return path if has_utf8_name(path) else path.open("rb")


def _check_column(path: Path, schema: pa.Schema) -> None:
    names = schema.names
    if COLUMN not in names:
        texts = [column.name for column in schema if is_text(column.type)]
        example = f"df.rename(columns={{{texts[0]!r}: {COLUMN!r}}})" if texts else "df.rename"
        raise UserError(
            f"{path} has no column '{COLUMN}' (it has {', '.join(names) or 'none'}); "
            f"rename the column with the documents to '{COLUMN}', in pandas with {example}"
        )
    if names.count(COLUMN) > 1:
        raise UserError(f"{path} has several columns '{COLUMN}'; keep the one with the documents")
    if not is_text(kind := schema.field(COLUMN).type):
        raise UserError(
            f"column '{COLUMN}' of {path} holds {kind}; it must hold strings: "
            "write the file again with one string a row"
        )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # a column in which every text is missing has the type null
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())


def read_row_group(
    file: pq.ParquetFile, index: int, path: Path | str, rows: Sequence[int] | None = None
) -> list[str]:
    """The documents of one row group, or those at ``rows``; a missing text is an empty document."""
    try:
        group = file.metadata.row_group(index)
        columns = [group.column(i) for i in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == COLUMN)
        if size > LARGEST_ROW_GROUP:
            raise UserError(
                f"row group {index} of {path} has {size / 1e9:.1f} GB of text, too much to hold "
                "at once; write the file again with smaller row groups"
            )
        column = file.read_row_group(index, columns=[COLUMN]).column(COLUMN)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    try:
        whole = rows is None or rows == range(len(column))
        texts = column.to_pylist() if whole else [column[row].as_py() for row in rows or ()]
        return [text or "" for text in texts]
    except UnicodeDecodeError:
        before = sum(file.metadata.row_group(i).num_rows for i in range(index))
        raise _bad_row(path, index, column, before) from None
    except IndexError as error:
        raise unreadable(path, error) from None


def _bad_row(path: Path | str, index: int, column: pa.ChunkedArray, before: int) -> UserError:
    """Names the first row of ``column``, row group ``index``, whose bytes are no UTF-8."""
    for row, text in enumerate(column):
        try:
            text.as_py()
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            return UserError(
                f"{path}: row {row} of row group {index} (row {before + row} of the file, counted "
                f"from 0) is not UTF-8: byte 0x{byte:02x} at {error.start}; decode that text as "
                "what it is (Latin-1, say) and write the file again"
            )
    raise AssertionError("every row is UTF-8")


def count_documents(path: Path | str) -> list[int]:
    """The number of documents in each row group of a shard, from its footer: no text is read."""
    metadata = open_shard(path).metadata
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def read_documents(path: Path | str) -> Iterator[str]:
    """All documents of a shard, one row group in memory at a time."""
    file = open_shard(path)
    for index in range(file.num_row_groups):
        yield from read_row_group(file, index, path)


def write_shard(path: Path | str, documents: Iterable[str], row_group_size: int = 200) -> None:
    """Write ``documents`` as a shard (zstd), whole or not at all."""
    table = pa.table({COLUMN: pa.array(list(documents), pa.string())})
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, row_group_size=row_group_size, compression="zstd")


def unreadable(path: Path | str, error: Exception) -> UserError:
    """What to say of a parquet file that raised ``error``."""
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read by you; change its permissions")
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return UserError(f"{path} is not a readable parquet file ({reason}); {MAKE_AGAIN}")
