"""What a step is measured by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from nanogpt2.training.metrics import peak_flops, peak_resident


def test_peak_memory_is_at_least_what_is_resident() -> None:
    before = psutil.Process().memory_info().rss
    assert before * 0.9 <= peak_resident() < psutil.virtual_memory().total


def test_peak_memory_is_a_processs_own_whatever_started_it() -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("only Linux tells it")
    child = "from nanogpt2.training.metrics import peak_resident; print(peak_resident())"
    parent = (
        "import subprocess, sys; held = b'1' * 1_000_000_000; "
        "sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    )
    command = [sys.executable, "-c", parent, child]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 5e7 < int(said) < 9e8


def test_peak_memory_where_there_is_no_module_resource(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on Windows, where psutil knows the peak of the working set."""
    told = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345, rss=1))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", lambda: told)
    assert peak_resident(tmp_path / "none") == 12345


@pytest.mark.parametrize(
    ("name", "bf16"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L40", None), ("Tesla T4", None)],
)
def test_a_peak_is_the_one_that_the_planner_knows(
    name: str, bf16: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device = torch.device("cuda")
    assert peak_flops(device) == bf16 and peak_flops(device, "fp32") is None
    assert peak_flops(device, "fp8") == (bf16 and 2 * bf16)
    assert peak_flops(torch.device("cpu")) is None
