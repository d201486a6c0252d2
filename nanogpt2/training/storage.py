"""Checkpoint folders: written beside and renamed, marked as whole last, verified before use.

    RUN/checkpoints/step_000250/
        model.safetensors                          parameters, by name
        optimizer_rank00000_of_00004.safetensors   a rank's share of the optimizer
        state.json                                 step, configuration, recipe, figures
        COMPLETE                                   size and SHA-256 of each of the above

A folder without its marker, or that differs from it, is never read. Chapter: loop.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nanogpt2.errors import UserError
from nanogpt2.files import atomic_write, has_utf8_name, read_json, sha256_of, write_json

MARKER = "COMPLETE"
MODEL_FILE, STATE_FILE = "model.safetensors", "state.json"
FOLDER = "checkpoints"
PARTIAL, DAMAGED = ".partial", ".damaged"
_STEP = re.compile(r"step_(\d{6,})")
_SAVED = re.compile(
    r"\.?(COMPLETE|state\.json|model\.safetensors|optimizer_rank\d+_of_\d+\.safetensors)(\..+)?"
)
"""the files of a checkpoint, and what is left of them when a save is cut short"""


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps of the run lies."""
    return run / FOLDER / f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name; -1 for other names."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else -1


def list_checkpoints(run: Path) -> list[Path]:
    """The marked checkpoints of a run, newest first; whether they are whole, ``verify`` says."""
    folder = run / FOLDER
    found = [p for p in folder.iterdir() if step_of(p) >= 0] if folder.is_dir() else []
    return sorted((p for p in found if (p / MARKER).is_file()), key=step_of, reverse=True)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; OSError when the disk refuses."""
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            match = re.search(r"os error (\d+)", str(error))
            if match is None:
                raise
            number = int(match[1])
            raise OSError(number, os.strerror(number), str(path)) from None


def describe_file(path: Path) -> dict[str, Any]:
    """What the marker says of one file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def mark_complete(partial: Path, files: dict[str, dict[str, Any]], folder: Path) -> None:
    """Write the marker into ``partial`` and let it become ``folder``.

    Raises OSError when a file that a rank reported is not there in its size, UserError where
    ``folder`` is a link.
    """
    for name, facts in files.items():
        if (partial / name).stat().st_size != facts["bytes"]:
            raise OSError(f"{partial / name} is shorter than it was written")
    write_json(partial / MARKER, {"files": files})
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; move it away, for a checkpoint goes there")
    if folder.exists():  # an older one of the same step, damaged or from before a resume
        remove_checkpoint(folder)
    if folder.exists():  # a user's notes are in it
        for name in (*files, MARKER):
            os.replace(partial / name, folder / name)
        partial.rmdir()
    else:
        os.replace(partial, folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_checkpoint(folder: Path) -> None:
    """Delete what a save wrote; of the user's, links to folders and files in it, nothing.

    The marker goes first: a removal cut short must not leave a folder that looks whole.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    (folder / MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _SAVED.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else
        folder.rmdir()


def verify(folder: Path) -> None:
    """Raise UserError unless every file of the checkpoint is what its marker says."""
    cure = "it is damaged or unfinished; use another checkpoint"
    if not (folder / MARKER).is_file():
        raise UserError(f"{folder} has no {MARKER} marker: it was never finished; use another one")
    marker = read_json(folder / MARKER, cure)
    files = marker.get("files") if isinstance(marker, dict) else None
    if not isinstance(files, dict) or not {MODEL_FILE, STATE_FILE} <= set(files):
        raise UserError(f"{folder / MARKER} does not list the checkpoint's files; {cure}")
    for name, facts in files.items():
        if name != Path(name).name or not isinstance(facts, dict):
            raise UserError(f"{folder / MARKER} is not a checkpoint's marker; {cure}")
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {cure}")
        if path.stat().st_size != facts.get("bytes"):
            size = f"{path.stat().st_size:,} bytes instead of {facts.get('bytes')}"
            raise UserError(f"{path} has {size}; {cure}")
        if sha256_of(path) != facts.get("sha256"):
            raise UserError(
                f"{path} has changed since it was written (its SHA-256 differs); {cure}"
            )


def newest_whole(run: Path, tell: Callable[[str], None] = lambda line: None) -> Path | None:
    """The newest checkpoint that verifies; each one passed over gives a line to ``tell``."""
    for folder in list_checkpoints(run):
        try:
            verify(folder)
            return folder
        except UserError as error:
            tell(f"passing over {folder.name}: {error}")
    return None


def set_aside(run: Path, step: int) -> None:
    """Rename checkpoints later than ``step``, which did not verify: they must not count as kept."""
    for folder in list_checkpoints(run):
        if step_of(folder) > step:
            target = folder.with_name(folder.name + DAMAGED)
            remove_checkpoint(target)
            names = (target.with_name(f"{target.name}{n or ''}") for n in count())
            os.replace(folder, next(path for path in names if not os.path.lexists(path)))


def clean_partial(run: Path) -> None:
    """Remove what an interrupted save left behind."""
    folder = run / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        of_a_step = _STEP.fullmatch(path.name.removesuffix(PARTIAL))
        if of_a_step and (path.name.endswith(PARTIAL) or not (path / MARKER).exists()):
            remove_checkpoint(path)


def read_state(folder: Path) -> dict[str, Any]:
    """``state.json`` with its types checked; UserError when it is not one."""
    state = read_json(folder / STATE_FILE, "use another checkpoint")
    kinds = {"step": int, "world_size": int, "model": dict, "recipe": dict, "progress": dict}
    for name, kind in kinds.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise UserError(
                f"{folder / STATE_FILE} has no valid {name!r}: it was not written by this version "
                "of nanogpt2; use another checkpoint"
            )
    if not 1 <= state["world_size"] <= 1_000_000 or state["step"] < 0:
        raise UserError(f"{folder / STATE_FILE} has impossible figures; use another checkpoint")
    return state


def learned(run: Path) -> dict[str, Any] | None:
    """The state of a run's newest readable checkpoint; None where it has learned nothing yet."""
    for folder in list_checkpoints(run):
        with suppress(UserError):
            return read_state(folder)
    return None


def open_tensors(path: Path, device: str = "cpu") -> Any:
    """A safetensors file, opened lazily; UserError when it is not one."""
    try:
        with _utf8_name(path) as name:
            return safe_open(name, framework="pt", device=device)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; use another checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); use another checkpoint"
        ) from None


@contextmanager
def _utf8_name(path: Path) -> Iterator[Path]:
    """``path``, or a link to it where its name is not UTF-8: safetensors opens no such file."""
    if has_utf8_name(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / MODEL_FILE
        link.symlink_to(path.absolute())
        yield link


def retain(run: Path, keep_last: int, scores: Mapping[int, float]) -> None:
    """Delete all checkpoints but the last ``keep_last`` and the one of the lowest score.

    ``scores`` has the validation bits per byte of the steps after which it was measured.
    """
    folders = list_checkpoints(run)
    measured = [folder for folder in folders if step_of(folder) in scores]
    best = min(measured, key=lambda folder: scores[step_of(folder)], default=None)
    for folder in folders[keep_last:]:
        if folder != best:
            remove_checkpoint(folder)


def dump_json(value: Any) -> str:
    """Compact JSON for safetensors metadata."""
    return json.dumps(value, separators=(",", ":"))
