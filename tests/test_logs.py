"""Logs beside the run's own files: each kind is asked for what its package expects."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from nanogpt2.errors import UserError
from nanogpt2.logs import KINDS, check_log, open_log
from nanogpt2.training.command import main
from tests.training.conftest import tiny_data  # noqa: F401

EXTRAS = [kind for kind in KINDS if kind != "none"]


class Recorder(ModuleType):
    """Stands for wandb and trackio, whose runs have the same two methods."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.started: list[dict] = []
        self.rows: list[tuple[dict, int]] = []
        self.finished = 0

    def init(self, **settings):
        self.started.append(settings)
        return self

    def log(self, values, step):
        self.rows.append((values, step))

    def finish(self):
        self.finished += 1


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_resumed_run_continues_its_log(kind, tmp_path, monkeypatch):
    package = Recorder()
    monkeypatch.setitem(sys.modules, kind, package)
    for step in (1, 2):
        log = open_log(kind, tmp_path / "laptop", {"depth": 4})
        log.log(step, {"loss": 3.5})
        log.close()
    first, second = package.started
    assert first == second and first["resume"] == "allow" and first["name"] == "laptop"
    assert first["config"] == {"depth": 4}
    assert package.rows == [({"loss": 3.5}, 1), ({"loss": 3.5}, 2)]
    assert package.finished == 2


def test_runs_in_different_folders_are_different_runs(tmp_path, monkeypatch):
    package = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", package)
    for parent in ("a", "b"):
        open_log("wandb", tmp_path / parent / "laptop", {})
    assert package.started[0]["id"] != package.started[1]["id"]


def test_tensorboard_writes_scalars_into_the_run(tmp_path):
    pytest.importorskip("tensorboard", reason="the optional extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = open_log("tensorboard", tmp_path, {"depth": 4})
    log.log(7, {"loss": 3.5, "sample 1": "My fellow citizens"})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(7, 3.5)]
    (text,) = events.Tensors("sample 1/text_summary")
    assert text.step == 7 and text.tensor_proto.string_val == [b"My fellow citizens"]


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_missing_package_is_named_before_any_work(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"pip install -e '\.\[{kind}\]'.*--log none"):
        check_log(kind)


def test_an_unknown_log_names_the_known_ones(tmp_path):
    for opened in (lambda: check_log("wandbb"), lambda: open_log("wandbb", tmp_path, {})):
        with pytest.raises(UserError, match="wandb, trackio, tensorboard, none"):
            opened()


def test_none_writes_nothing(tmp_path):
    log = open_log("none", tmp_path, {})
    log.log(1, {"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_the_trainer_alone_keeps_a_log_too(tiny_data, tmp_path, monkeypatch):  # noqa: F811
    package = Recorder()
    monkeypatch.setitem(sys.modules, "trackio", package)
    place = ["--data", str(tiny_data.data_dir), "--tokenizer", str(tiny_data.tokenizer_dir)]
    sizes = ["--depth=2", "--set=aspect=16", "--set=head_dim=16", "--set=model.sequence_len=32"]
    sizes += ["--set=batch_tokens=256", "--steps=2", "--eval-every=-1", "--device=cpu"]
    assert main([*place, *sizes, "--out", str(tmp_path / "run"), "--log", "trackio"]) == 0
    assert [step for _, step in package.rows] == [1, 2] and package.rows[0][0]["loss"] > 0
    assert package.finished == 1
    with pytest.raises(UserError, match="wandb, trackio, tensorboard, none"):
        main([*place, *sizes, "--out", str(tmp_path / "other"), "--log", "wandbb"])
    assert not (tmp_path / "other").exists()
