"""Benchmarks by their commands, at sizes that take seconds: they run, and write what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> str:
    """stdout of ``python -m COMMAND``; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_data_packs_as_its_definition_does_and_says_how_fast(tmp_path: Path) -> None:
    """The command fails where the packer's rows differ from those of the scan."""
    path = tmp_path / "rows.json"
    run("benchmarks.data", "--megabytes", "0.2", "--json", str(path))
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    assert {row["unit"] for row in rows} == {"MB/s", "tokens/s", "bytes", "x", "%", "ms"}
    assert all(row["value"] > 0 for row in rows)
    assert all(row["value"] < 100 for row in rows if row["unit"] == "%")


def test_saving_says_what_a_checkpoint_takes(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    run("benchmarks.saving", "--depth", "1", "--folder", str(tmp_path), "--json", str(path))
    rows = json.loads(path.read_text())["rows"]
    waits, whole = (rows[i]["value"] for i in (2, 3))
    assert 0 < waits < whole < rows[-1]["value"], "a deeper model takes longer"
    assert sorted(tmp_path.iterdir()) == [path]


def test_decode_knows_the_size_of_its_cache() -> None:
    sizes = ["--depth", "2", "--recipe", "laptop", "--prompt-tokens", "40", "--new-tokens", "3"]
    rows = json.loads(run("benchmarks.decode", *sizes, "--batches", "1", "2", "--json"))
    assert all(set(row) == {"part", "what", "value", "unit"} for row in rows)
    assert {row["unit"] for row in rows} == {"tokens/s", "x", "MiB"}
    assert all(row["value"] > 0 for row in rows)
    held, full = (row["value"] for row in rows[-2:])
    # depth 2 has one short window (128 of 256 keys) and a full one
    assert held / full == (129 + 256) / (2 * 256)
