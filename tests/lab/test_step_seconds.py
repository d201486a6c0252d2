"""Steps timed in turn: each trial by its name, with its change of the code, and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from nanogpt2.lab import step_seconds as timing
from nanogpt2.lab.trials import Trial
from nanogpt2.recipes import YARDSTICK, get_recipe

TINY = get_recipe(
    YARDSTICK, depth=1, aspect=16, head_dim=16, sequence_len=16, vocab_size=300,
    batch_tokens=64, value_gate_channels=8,
)  # fmt: skip
entered: list[str] = []


@contextmanager
def changed():
    entered.append("in")
    yield
    entered.append("out")


def test_each_trial_has_a_time_a_round_and_is_changed_for_its_own_steps_alone() -> None:
    entered.clear()
    found = timing.step_seconds([Trial("plain", TINY, 0), Trial("changed", TINY, 0, "", changed)])
    assert list(found) == ["plain", "changed"]
    assert all(len(values) == timing.ROUNDS and min(values) > 0 for values in found.values())
    # once to make the model, once for each round and the one that does not count
    assert entered == ["in", "out"] * (timing.ROUNDS + 2)


def test_a_record_of_seconds_is_read_by_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOGPT2_RESULTS", str(tmp_path))
    assert timing.recorded_seconds("tiny") == {}
    path = timing.record_step_seconds("tiny", [Trial("plain", TINY, 0)])
    assert path == tmp_path / "tiny-seconds.json"
    assert timing.recorded_seconds("tiny")["plain"] > 0
