"""Parquet shards with a ``text`` column: the one form in which documents reach the trainer.

The last shard (by name) is for validation, the others are for training. Chapter: data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nanogpt2.errors import UserError
from nanogpt2.files import atomic_write, has_utf8_name

COLUMN = "text"
LARGEST_ROW_GROUP = 4 * 2**30
"""bytes of text that are read at once, at most; the records' row groups have about 5 MB"""


def list_shards(folder: Path | str) -> list[Path]:
    """The parquet files of ``folder`` by name; UserError unless there are at least two."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} does not exist; give a folder of parquet files")
    shards = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if len(shards) < 2:
        raise UserError(
            f"{folder} holds {len(shards)} parquet files and needs at least 2: "
            "the last one is for validation, the others are for training"
        )
    return shards


def split_shards(folder: Path | str, split: str) -> list[Path]:
    """The shards of ``split``: "train" is all but the last, "val" the last."""
    *train, val = list_shards(folder)
    return [val] if split == "val" else train


def open_shard(path: Path | str) -> pq.ParquetFile:
    """Open and check a shard; UserError says what is wrong with it."""
    path = Path(path)
    try:
        file = pq.ParquetFile(_source(path))
        schema = file.schema_arrow
        names = schema.names
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; fetch it again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, PermissionError):
            raise
        raise _damaged(path, error) from None
    if COLUMN not in names:
        raise UserError(
            f"{path} has no column '{COLUMN}' (it has {', '.join(names) or 'none'}); "
            "name the column with the documents 'text'"
        )
    if names.count(COLUMN) > 1:
        raise UserError(f"{path} has several columns '{COLUMN}'; keep the one with the documents")
    kind = schema.field(COLUMN).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"column '{COLUMN}' of {path} holds {kind}; it must hold strings")
    return file


def _source(path: Path) -> Path | BinaryIO:
    """What pyarrow can open: it spells names in UTF-8, and others are opened here."""
    return path if has_utf8_name(path) else path.open("rb")


def read_row_group(file: pq.ParquetFile, index: int, path: Path | str) -> list[str]:
    """The documents of one row group, in order; a missing text is an empty document."""
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
        return [text or "" for text in column.to_pylist()]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


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


def _damaged(path: Path | str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return UserError(
        f"{path} is not a readable parquet file ({reason}); delete it and fetch it again"
    )
