"""A tiny data set, and a finished run on it, for all tests of the room."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, prepare


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    """Shards and a tokenizer of 270 tokens."""
    return prepare(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def unbroken(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to; not to be changed."""
    run = tmp_path_factory.mktemp("unbroken")
    train(tiny_data.settings(run))
    return run
