"""Checkpoint folders: what a save wrote is cleared away, and a user's notes in them are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.files import write_json
from nanogpt2.training.checkpoint import (
    MARKER,
    checkpoint_folder,
    clean_partial,
    describe_file,
    list_checkpoints,
    mark_complete,
    set_aside,
    write_tensors,
)
from nanogpt2.training.saver import retain

LEFT = (".state.json.k3j2.partial", ".tmpAbC123")
"""of a save that was cut short, by this program and by safetensors"""
NOTES = "this is the one that I liked best"
SAVED = ("model.safetensors", "state.json", "optimizer_rank00000_of_00001.safetensors")


def save(run: Path, step: int, ending: str = "") -> Path:
    """Files of a checkpoint, not yet marked."""
    folder = checkpoint_folder(run, step)
    folder = folder.with_name(folder.name + ending)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SAVED, *LEFT):
        (folder / name).write_text(f"{name} of step {step}")
    return folder


def finish(run: Path, step: int) -> Path:
    """As a save ends."""
    partial, folder = save(run, step, ".partial"), checkpoint_folder(run, step)
    for name in LEFT:
        (partial / name).unlink()
    mark_complete(partial, {name: describe_file(partial / name) for name in SAVED}, folder)
    return folder


def saves_again(run: Path) -> None:
    finish(run, 1)


def keeps_two_others(run: Path) -> None:
    retain(run, 2, {})


def goes_on_after_a_kill(run: Path) -> None:
    (checkpoint_folder(run, 1) / MARKER).unlink()
    clean_partial(run)


def goes_on_twice_from_an_earlier_one(run: Path) -> None:
    set_aside(run, 0)
    for step in (1, 2, 3):
        finish(run, step)
    set_aside(run, 0)


@pytest.mark.parametrize(
    "event",
    [saves_again, keeps_two_others, goes_on_after_a_kill, goes_on_twice_from_an_earlier_one],
)
@pytest.mark.parametrize(
    "name", ["notes.txt", "plots/loss.txt", "model.safetensors.bak", "state.json.orig", ".tmp"]
)
def test_notes_in_a_checkpoint_stay(
    name: str, event: Callable[[Path], None], tmp_path: Path
) -> None:
    for step in (1, 2, 3):
        finish(tmp_path, step)
    notes = checkpoint_folder(tmp_path, 1) / name
    notes.parent.mkdir(exist_ok=True)
    notes.write_text(NOTES)
    event(tmp_path)
    (kept,) = (tmp_path / "checkpoints").rglob(Path(name).name)
    assert kept.read_text() == NOTES
    whole = {path.name for path in list_checkpoints(tmp_path)}
    assert ("step_000001" in whole) == (event is saves_again)
    for folder in list_checkpoints(tmp_path):
        assert {*SAVED, MARKER} <= {path.name for path in folder.iterdir()}


def test_what_a_kill_left_is_cleared_away(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2, ".partial")
    whole = finish(tmp_path, 3)
    clean_partial(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == [whole]


def test_other_folders_beside_checkpoints_stay(tmp_path: Path) -> None:
    mine = tmp_path / "checkpoints" / "draft.partial" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text(NOTES)
    clean_partial(tmp_path)
    assert mine.read_text() == NOTES


def test_a_link_in_the_place_of_a_checkpoint_is_not_followed(tmp_path: Path) -> None:
    mine = save(tmp_path / "elsewhere", 1)
    (tmp_path / "checkpoints").mkdir()
    checkpoint_folder(tmp_path, 1).symlink_to(mine)
    clean_partial(tmp_path)
    with pytest.raises(UserError, match="is a link; move it away"):
        finish(tmp_path, 1)
    assert checkpoint_folder(tmp_path, 1).is_symlink()
    assert (mine / "state.json").read_text() == "state.json of step 1"


def test_all_files_of_a_checkpoint_may_be_read_by_the_same_people(tmp_path: Path) -> None:
    write_json(tmp_path / "state.json", {})
    write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(2)}, {})
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
