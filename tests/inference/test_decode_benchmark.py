"""The benchmark runs and says what it measured."""

from __future__ import annotations

from benchmarks.decode import measure


def test_rows():
    rows = measure(2, "laptop", prompt_tokens=40, new_tokens=3, batches=(1, 2), device="cpu")
    assert all(set(row) == {"part", "what", "value", "unit"} for row in rows)
    assert {row["unit"] for row in rows} == {"tokens/s", "x", "MiB"}
    assert all(row["value"] > 0 for row in rows)
    held, full = (row["value"] for row in rows[-2:])
    # depth 2 has one short window (128 of 256 keys) and a full one
    assert held / full == (129 + 256) / (2 * 256)
