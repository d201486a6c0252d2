"""What the chapter on the speedrun rehearses, plans and recomputes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab import recorded
from nanogpt2.reported import LEADERBOARD
from nanogpt2.studies import speedrun as run
from nanogpt2.studies.speedrun.__main__ import main, record_run
from nanogpt2.studies.speedrun.rehearsals import steps_done


def test_records_are_recomputed_to_the_digit() -> None:
    rows = {row[0]: row[1:] for row in run.leaderboard_rows()}
    steps = ["16,704", "14,889", "7,226", "6,612", "6,055", "5,568"]
    assert [rows[name][1] for name in LEADERBOARD] == steps
    assert rows["run1"][2] == "4.3308e+19" and rows["run1"][4] == "73"
    assert [rows[name][0] for name in ("run3", "run4")] == ["one", "mean of 7"]


def test_changes_name_fields_that_differ_and_only_those() -> None:
    changes = {name: told.split("; ") for name, told in run.change_rows()}
    assert list(changes) == list(LEADERBOARD)[1:]
    assert any(change.startswith("ratio 8.5 → 8.25") for change in changes["run3"])
    assert not any(change.startswith("depth") for change in changes["run3"])
    for told in changes.values():
        for change in told:
            before, after = change.split(" ", 1)[1].split(" → ")
            assert before != after


def test_plans_scale_with_devices() -> None:
    eight, one, small = run.plan_rows([("H100", 8), ("H100", 1), ("T4", 1)])
    assert eight[1] == one[1] == "yes" and small[1] == "no"
    assert int(one[3]) * int(one[2]) == 8 * int(eight[3]) * int(eight[2])
    assert eight[6] == "73" and eight[5] == "3.0 h"


def test_prices_are_dated_and_told_from_where() -> None:
    for when, _, hourly, total, source in run.price_rows():
        assert when.split()[-1].isdigit() and source
        assert float(total) == pytest.approx(float(hourly) * 3.0415, abs=0.6)


def test_gpt3_by_run_1s_speed() -> None:
    low, high = run.gpt3_hours()
    assert high == pytest.approx(2 * low)
    ratio = 6 * 175e9 * 300e9 / dial(24, "run1").total_flops
    assert low == pytest.approx(3.04 * ratio, rel=1e-3)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    sizes = {"steps": 8, "checkpoint_every": 2, "eval_every": 4, "eval_tokens": 512}
    sizes |= {"batch_tokens": 256, "sequence_len": 64, "vocab_size": 512}
    asked = ["--recipe", "laptop", "--depth", "1"]
    for name, value in sizes.items():
        asked += ["--set", f"{name}={value}"]
    killed = run.rehearse(tmp_path / "a", *asked, kill_at=5)
    assert killed.code == -signal.SIGKILL or killed.steps == 8  # a quick machine may be done
    again = run.rehearse(tmp_path / "a", *asked)
    assert again.code == 0 and again.steps == 8, again.said
    run.prepared_copy(tmp_path / "a", tmp_path / "b")
    whole = run.rehearse(tmp_path / "b", *asked)
    assert whole.code == 0 and run.same_weights(tmp_path / "a", tmp_path / "b")
    assert not any(str(tmp_path) in line for line in run.stages_said(whole))


def test_a_run_is_recorded_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOGPT2_RESULTS", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    files = {
        "config.json": {
            "name": "laptop", "command": "python", "recipe": {}, "settings": {}, "seed": 0,
            "machine": {"cores": 2},
        },
        "evaluation.json": {"val_bpb": 1.5, "tokens": 10},
        "training.json": {
            "steps": 3, "tokens": 30, "seconds": 2.0, "tokens_per_second": 15.0,
            "memory_bytes": 1, "parameters": 7,
        },
        "samples.json": [{"prompt": "a", "text": "b"}],
        "core.json": {
            "core": 0.1, "core_corrected": 0.08, "protocol": "nanochat", "standard_error": 0.01,
            "tasks": {"copa": {"accuracy": 0.6, "standard_error": 0.05, "examples": 100}},
        },
    }  # fmt: skip
    for name, body in files.items():
        (folder / name).write_text(json.dumps(body))
    points = [{"step": n, "loss": 5.0 - n} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points[:2]))
    with pytest.raises(UserError, match="not a finished run"):
        record_run(folder)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    main([str(folder)])
    kept = recorded("speedrun-laptop", tmp_path / "results")
    assert kept.results["core"]["tasks"]["copa"]["examples"] == 100
    assert [p["step"] for p in kept.curve] == [1, 2, 3]


def test_a_run_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not end"):
        run.rehearse(tmp_path / "a", "--recipe", "laptop", timeout=0.2)
    assert steps_done(tmp_path / "a") == 0


def test_the_opening_has_the_runs_numbers() -> None:
    told = run.pipeline().text
    for part in ("(16, 2,048 + 1)", "8 ranks x 2 passes", "524,288 tokens", "16,704", "73 dollars"):
        assert part in told
