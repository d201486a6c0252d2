"""Records of short runs: what was run stands in them, and the command that repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanogpt2 import lab
from nanogpt2.lab.short_runs import record_short_runs


def test_a_record_tells_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOGPT2_RESULTS", str(tmp_path))
    runs = lab.small_runs(lab.small_config(1), seeds=(3, 4), steps=1)
    path = record_short_runs("tiny", "Tiny runs", runs, {"answer": 42}, " --stage tiny")
    kept = lab.recorded(path.stem, tmp_path)
    assert path.name == "tiny-depth1.json" and kept.results == {"answer": 42}
    assert kept.command == "python -m nanogpt2.studies.tiny --stage tiny"
    assert kept.configuration["seeds"] == [3, 4] and kept.configuration["config"]["n_layer"] == 1
    assert kept.tokens == runs[0].tokens and kept.seconds == sum(run.seconds for run in runs)
    assert kept.note.startswith("Tiny runs: 1 layers, 32 wide")
