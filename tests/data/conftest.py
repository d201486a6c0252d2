"""Waits that a test need not wait for."""

from __future__ import annotations

import pytest

from nanogpt2.data import download, transfer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.002)


@pytest.fixture
def soon_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT", 1.0)
    monkeypatch.setattr(download, "TIMEOUT", 1.0)
