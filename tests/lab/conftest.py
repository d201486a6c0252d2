"""Text for the small runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanogpt2.data.shards import write_shard


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for split in ("train", "val"):
        lines = [f"In {split} document {i} stands {i * i} and no more." for i in range(200)]
        write_shard(folder / f"{split}.parquet", lines)
    return folder
