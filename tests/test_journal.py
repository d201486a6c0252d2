"""What attempts at a run leave behind: times by stage, why they ended, and what is not repeated."""

from __future__ import annotations

import json
import os

import pytest

from nanogpt2.errors import UserError
from nanogpt2.journal import NAME, Journal


def fail(journal: Journal, error: BaseException, stage: str = "train") -> None:
    """An attempt that ends by ``error`` in a stage."""
    with pytest.raises(type(error)), journal.stage(stage):
        raise error
    journal.failed(error)


def again(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(times))


def test_a_users_mistake_is_not_tried_again_until_somebody_starts_anew(tmp_path, monkeypatch):
    fail(Journal(tmp_path), UserError("step 7: the loss is nan"))
    assert Journal(tmp_path).refusal() is None, "somebody typed the command again"
    for times in (1, 2, 3):
        again(monkeypatch, times)
        assert Journal(tmp_path).refusal() == "step 7: the loss is nan"
    again(monkeypatch, 0)
    fail(Journal(tmp_path), ConnectionError("a rank was lost"))
    again(monkeypatch, 1)
    assert Journal(tmp_path).refusal() is None, "of an earlier start"


def test_a_lost_rank_is_tried_again_and_the_log_says_why(tmp_path, monkeypatch):
    fail(Journal(tmp_path), TimeoutError("rank 1 is silent"))
    again(monkeypatch, 1)
    restarted = Journal(tmp_path)
    assert restarted.refusal() is None
    assert restarted.last_words() == "rank 0: TimeoutError: rank 1 is silent"
    with restarted.stage("train"):
        pass
    (begun,) = (line for line in restarted.lines() if line.get("attempt") == 1)
    assert "rank 1 is silent" in begun["after"]
    assert restarted.last_words() is None


def test_another_ranks_mistake_counts_too(tmp_path, monkeypatch):
    with Journal(tmp_path).stage("data"):
        Journal(tmp_path, rank=3).failed(UserError("no such file"))
    again(monkeypatch, 1)
    assert Journal(tmp_path).refusal() == "no such file"


def test_an_attempt_that_was_killed_is_told_by_what_is_missing(tmp_path):
    ended = Journal(tmp_path).stage("train")
    ended.__enter__()
    assert "killed" in Journal(tmp_path).last_words()
    assert "'train'" in Journal(tmp_path).last_words()
    ended.__exit__(None, None, None)


def test_times_add_up_over_attempts_and_torn_lines_do_not_count(tmp_path):
    journal = Journal(tmp_path)
    assert journal.seconds() == {} and not (tmp_path / NAME).exists()
    for name in ("data", "train"):
        with journal.stage(name):
            pass
    fail(Journal(tmp_path), KeyboardInterrupt())
    told = [
        line["seconds"]
        for line in journal.lines()
        if line.get("stage") == "train" and "ended" in line
    ]
    assert len(told) == 2
    with open(tmp_path / NAME, "a", encoding="utf-8") as file:
        file.write('{"stage": "train", "seconds": 1e')
    assert journal.seconds()["train"] == pytest.approx(sum(told))
    assert set(journal.seconds()) == {"data", "train"}
    assert json.loads((tmp_path / NAME).read_text().splitlines()[0])["attempt"] == 0


def test_no_line_is_written_into_a_folder_that_is_no_runs(tmp_path):
    Journal(tmp_path).failed(UserError("another run is at work"))
    assert os.listdir(tmp_path) == []
