"""Many small runs: each trained alike, told by a file, and never twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nanogpt2.errors import UserError
from nanogpt2.lab import trials
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.text import Text, text_of
from nanogpt2.lab.trials import (
    Results,
    Trial,
    processors,
    train,
)
from nanogpt2.recipes import YARDSTICK, get_recipe

TINY = get_recipe(
    YARDSTICK, depth=1, aspect=16, head_dim=16, sequence_len=16, vocab_size=300,
    batch_tokens=64, iterations=4, value_gate_channels=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("NANOGPT2_LAB_CACHE", str(cache))


@pytest.fixture
def text(data: Path) -> Text:
    return text_of(data, 300, 5000)


def test_a_seed_is_an_order_of_the_text_and_held_out_rows_are_the_same_for_all(text: Text) -> None:
    def rows(packing: str, seed: int | None) -> list[list[int]]:
        return [r for x, _ in text.batches(packing, 4, 16, seed) for r in x.tolist()]

    for packing in ("best_fit", "stream"):
        assert rows(packing, 0) == rows(packing, 0) != rows(packing, 1)
        assert rows(packing, None) == rows(packing, None)
    bos = text.tokenizer.bos_id
    assert all(row[0] == bos for row in rows("best_fit", 0))
    assert not all(row[0] == bos for row in rows("stream", 0))
    flat = [token for row in rows("stream", None) for token in row]
    whole = text.tokens["val"].tolist()
    assert flat[:16] + flat[16:32] == whole[:16] + whole[17:33], "cut every 17 tokens"
    with pytest.raises(UserError, match="fewer than 9,999 rows"):
        text.held_out("best_fit", 9999, 16)


def test_a_trial_says_what_it_was_and_the_same_one_ends_the_same(text: Text) -> None:
    first, again = (train(Trial("a", TINY, 3), text, 8) for _ in range(2))
    assert first["bpb"] == again["bpb"] and first["bpb_stream"] != first["bpb"]
    assert first["recipe"]["model.vocab_size"] == 300
    assert (first["tokens"], first["held_out_tokens"]) == (256, 128)
    assert [point["step"] for point in first["curve"]] == [1, 2, 3, 4]
    assert train(Trial("a", TINY, 4), text, 8)["bpb"] != first["bpb"]


def test_another_machine_makes_the_baseline_anew_for_its_pairs(
    tmp_path: Path, text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Trial("base", TINY, 0)
    asked = [base, Trial("b", replace(TINY, warmup_steps=1), 0, "base")]
    results = Results(tmp_path)
    results.write(base, train(base, text, 8))
    assert [trial.name for trial in results.pending(asked)] == ["b"]
    monkeypatch.setattr(trials, "machine", lambda: "another")
    assert [trial.name for trial in results.pending(asked)] == ["base", "b"]
    for trial in asked:
        results.write(trial, train(trial, text, 8))
    assert not results.pending(asked) and len(results.all()) == 3


def test_a_pair_whose_sides_are_on_two_machines_is_made_on_one(
    tmp_path: Path, text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, other = Trial("base", TINY, 0), Trial("b", replace(TINY, warmup_steps=1), 0, "base")
    results = Results(tmp_path)
    results.write(other, train(other, text, 8))
    monkeypatch.setattr(trials, "machine", lambda: "another")
    results.write(base, train(base, text, 8))
    assert results.pending([base, other]) == [other], "it was made, but not beside its baseline"
    monkeypatch.setattr(trials, "machine", lambda: "a third")
    assert results.pending([base, other]) == [base, other]
    monkeypatch.undo()
    assert results.pending([base, other]) == [base]
    results.write(base, train(base, text, 8))
    for name in ("another", "a third"):
        monkeypatch.setattr(trials, "machine", lambda name=name: name)
        assert not results.pending([base, other]), "one machine has both"


def test_runs_of_an_earlier_state_of_the_code_are_told(tmp_path: Path, text: Text) -> None:
    results, trial = Results(tmp_path), Trial("base", TINY, 0)
    made = train(trial, text, 8)
    results.write(trial, {**made, "source": "of yesterday"})
    assert not results.pending([trial]) and results.by_other_code([trial]) == 1
    results.write(trial, made)
    assert results.by_other_code([trial]) == 0


def test_a_number_changed_by_hand_is_noticed(tmp_path: Path, text: Text) -> None:
    trial = Trial("a", TINY, 0)
    results = Results(tmp_path)
    results.write(trial, train(trial, text, 8))
    path = results.path(trial)
    path.write_text(json.dumps({**json.loads(path.read_text()), "bpb": 0.1}))
    with pytest.raises(UserError, match="SHA-256 differs"):
        results.all()


def test_a_trial_may_change_the_code_for_its_run_and_is_another_trial_then(text: Text) -> None:
    plain = Trial("a", TINY, 3)
    changed = replace(plain, within=narrow)
    assert changed.identity != plain.identity
    first, other = train(plain, text, 8), train(changed, text, 8)
    assert other["bpb"] != first["bpb"] and other["source"] != first["source"]
    assert train(plain, text, 8)["bpb"] == first["bpb"], "and the code is as before"


def narrow() -> Patch:
    """No token sees another."""
    return patched("nanogpt2.model.attention.attention", lambda q, k, v, window, backend: v)


def test_a_record_names_each_processor_once_and_torch_not_at_all():
    told = ["A, AVX2, torch 2.13.0+cpu", "B, AVX512, torch 2.13.0+cpu", "A, AVX2, torch 2.14.0"]
    assert processors(told) == "A, AVX2; B, AVX512"


def test_two_recipes_of_one_name_have_a_file_each(tmp_path: Path) -> None:
    at = Results(tmp_path).path
    first, other = Trial("a", TINY, 0), Trial("a", replace(TINY, warmup_steps=2), 0)
    assert at(first) == at(replace(first, against="b")) != at(other)
