"""Shards of any layout whose documents are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Layout = list[list[int]]
"""documents by shard and row group"""


class Numbers:
    """A tokenizer of documents that are numbers: each is one token after <|bos|>."""

    def encode_batch(
        self, texts: Sequence[str], prepend_bos: bool = True, threads: int = 1
    ) -> list[list[int]]:
        return [[0, int(text)] for text in texts]


def write(folder: Path, layout: Layout) -> list[Path]:
    """Shards of this layout; their documents are the numbers from 0 on."""
    numbers, paths = count(), []
    schema = pa.schema({"text": pa.string()})
    for shard, groups in enumerate(layout):
        paths.append(folder / f"s{shard}.parquet")
        with pq.ParquetWriter(paths[-1], schema) as writer:
            for size in groups:
                table = pa.table({"text": [str(n) for n in islice(numbers, size)]}, schema)
                writer.write_table(table)
    return paths
