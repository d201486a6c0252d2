"""What a step is measured by."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import psutil
import pytest

from nanogpt2.training.metrics import peak_resident


def test_peak_memory_is_at_least_what_is_resident() -> None:
    before = psutil.Process().memory_info().rss
    assert before * 0.9 <= peak_resident() < psutil.virtual_memory().total


def test_peak_memory_where_there_is_no_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where psutil knows the peak of the working set."""
    told = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345, rss=1))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", lambda: told)
    assert peak_resident() == 12345
