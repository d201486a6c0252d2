"""The benchmark runs, and its plain form of packing gives the packer's rows."""

from __future__ import annotations

from benchmarks.data import measure


def test_rows():
    rows = measure(megabytes=0.2, vocab_size=300, rounds=1)  # raises where the rows differ
    assert {row.unit for row in rows} == {"MB/s", "tokens/s", "bytes", "x", "%"}
    assert all(row.value > 0 for row in rows)
    assert all(row.value < 100 for row in rows if row.unit == "%")
