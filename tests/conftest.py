"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: workers share the cores

import pytest
import torch
from hypothesis import HealthCheck, settings

from nanogpt2.data.shards import write_shard

# machines are shared: how long an example takes says nothing about it
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared/` beside the checkout, with reference outputs and real data."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder shared/ beside the checkout")
    return folder


@pytest.fixture(scope="session")
def reference(shared_dir: Path) -> Path:
    """Reference outputs on fixed inputs."""
    return shared_dir / "reference"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of some short documents."""
    folder = tmp_path_factory.mktemp("text")
    for split in ("train", "val"):
        lines = [f"In {split} document {i} stands {i * i} and no more." for i in range(200)]
        write_shard(folder / f"{split}.parquet", lines)
    return folder
