"""Changes against the book's baseline: what is recorded of them, and what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanogpt2 import lab
from nanogpt2.files import read_json
from nanogpt2.lab import changes


def test_a_recorded_change_is_told_by_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tiny runs a side, recorded and read again: the difference is taken seed by seed."""
    monkeypatch.setenv("NANOGPT2_RESULTS", str(tmp_path))
    path = changes.record_command(
        "tiny", {"a loud head": {"lm_head_std": 0.5}}, {}, what="Tiny", extra_steps=3,
        more=lambda at: ({"extra": at.extra_steps}, 100.0),
        argv=["--steps", "1", "--depth", "1", "--seeds", "0", "1"],
    )  # fmt: skip
    assert path.name == "tiny-depth1.json"
    body = read_json(path, "")
    asked = "--depth 1 --steps 1 --extra-steps 3 --seeds 0 1 --device cpu"
    assert body["command"] == f"python -m nanogpt2.studies.tiny {asked}"
    assert body["results"]["extra"] == 3 and body["seconds"] > 100
    assert {key for key in body["curve"][0] if key.startswith("bpb")} == {
        f"bpb {name} seed {seed}" for name in ("baseline", "a loud head") for seed in (0, 1)
    }
    (row,) = changes.changes_rows(lab.recorded("tiny-depth1", tmp_path), "a loud head")
    ends = body["results"]["bpb"]
    apart = [a - b for a, b in zip(ends["a loud head"], ends["baseline"], strict=True)]
    assert row[:2] == ["a loud head", f"{sum(apart) / 2:+.4f}"]
    low, high = map(float, row[2].split(" to "))
    assert low < sum(apart) / 2 < high, "12.7 standard errors to each side, of two seeds"
    alike = low <= 0 <= high
    assert row[3].startswith("not distinguishable" if alike else "worse")
