"""What a step is measured by."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from nanogpt2.training.metrics import peak_flops, peak_resident


def test_peak_memory_is_at_least_what_is_resident() -> None:
    before = psutil.Process().memory_info().rss
    assert before * 0.9 <= peak_resident() < psutil.virtual_memory().total


def test_peak_memory_where_there_is_no_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where psutil knows the peak of the working set."""
    told = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345, rss=1))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", lambda: told)
    assert peak_resident() == 12345


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
