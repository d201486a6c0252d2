"""Checkpoint folders: written beside and renamed, marked as whole last, verified before use.

    RUN/checkpoints/step_000250/
        model.safetensors                          parameters, by name
        optimizer_rank00000_of_00004.safetensors   a rank's share of the optimizer
        state.json                                 step, configuration, recipe, figures
        COMPLETE                                   size and SHA-256 of each of the above

``verify`` is the border: a folder without its marker, or that differs from it, is never read.
Behind it everything is read inside ``damaged``, which makes one sentence of whatever goes wrong.
Nothing is unpickled, and nothing here knows of ranks. Chapter: loop.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError, explain
from nanogpt2.files import (
    atomic_write,
    flush_folder,
    has_utf8_name,
    read_json,
    sha256_of,
    write_json,
)
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW

MARKER = "COMPLETE"
MODEL_FILE, STATE_FILE = "model.safetensors", "state.json"
FOR_A_MODEL = (MODEL_FILE, STATE_FILE)
"""what is read where no training goes on"""
FOLDER = "checkpoints"
PARTIAL, DAMAGED = ".partial", ".damaged"
_STEP = re.compile(r"step_(\d{6,})")
_FILE = r"(COMPLETE|state\.json|model\.safetensors|optimizer_rank\d+_of_\d+\.safetensors)"
_SAVED = re.compile(rf"{_FILE}|\.{_FILE}\.\w+\.partial|\.tmp\w{{6}}")
"""the files of a checkpoint, and what a save that is cut short leaves of them"""
CURE = "use another checkpoint"


# Where they lie


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps of the run lies."""
    return run / FOLDER / f"step_{step:06d}"


def shard_file(rank: int, world_size: int) -> str:
    """Name of a rank's share of the optimizer."""
    return f"optimizer_rank{rank:05d}_of_{world_size:05d}.safetensors"


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name; -1 for other names."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else -1


def list_checkpoints(run: Path) -> list[Path]:
    """The marked checkpoints of a run, newest first; whether they are whole, ``verify`` says."""
    folder = run / FOLDER
    found = [p for p in folder.iterdir() if step_of(p) >= 0] if folder.is_dir() else []
    return sorted((p for p in found if (p / MARKER).is_file()), key=step_of, reverse=True)


# Writing and clearing away


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all; OSError when the disk refuses."""
    with atomic_write(path) as temporary:
        mode = temporary.stat().st_mode & 0o777
        try:
            save_file(tensors, temporary, metadata)
            temporary.chmod(mode)  # safetensors lets this user alone read it
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
    remove_checkpoint(folder)  # an older one of the same step, damaged or from before a resume
    if folder.exists():  # a user's notes are in it
        for name in (*files, MARKER):
            os.replace(partial / name, folder / name)
        partial.rmdir()
    else:
        os.replace(partial, folder)
    flush_folder(folder.parent)


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


# The border


@contextmanager
def damaged(folder: Path, cure: str = CURE) -> Iterator[None]:
    """Whatever fails while ``folder`` is read becomes one sentence: where, what, and the cure."""
    try:
        yield
    except UserError as error:
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise UserError(f"{where}{error}") from None
    except Exception as error:
        if explain(error) is not None:  # no permission, say, which is no damage
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{folder} is damaged, or a checkpoint of another model ({what}); {cure}"
        ) from None


def verify(folder: Path, names: Collection[str] | None = None) -> None:
    """Raise UserError unless the files ``names`` (None: all) are what the marker says of them.

    Each is hashed once, and all at the same time: SHA-256 is computed without Python's lock.
    """
    if not (folder / MARKER).is_file():
        raise UserError(f"{folder} has no {MARKER} marker: it was never finished; use another one")
    cure = f"it is damaged or unfinished; {CURE}"
    with damaged(folder):
        files = read_json(folder / MARKER, cure)["files"]

        def check(name: str) -> None:
            path, facts = folder / name, files[name]
            if name != path.name or not path.is_file():
                raise UserError(f"{path} is missing; {cure}")
            if (size := path.stat().st_size) != facts["bytes"]:
                raise UserError(f"{path} has {size:,} bytes instead of {facts['bytes']}; {cure}")
            if sha256_of(path) != facts["sha256"]:
                raise UserError(
                    f"{path} has changed since it was written (its SHA-256 differs); {cure}"
                )

        with ThreadPoolExecutor() as pool:
            list(pool.map(check, sorted({*FOR_A_MODEL, *(files if names is None else names)})))


def newest_whole(
    run: Path, tell: Callable[[str], None], names: Collection[str] | None = None
) -> Path | None:
    """The newest checkpoint that verifies; each one passed over gives a line to ``tell``."""
    for folder in list_checkpoints(run):
        try:
            verify(folder, names)
            return folder
        except UserError as error:
            tell(f"passing over {folder.name}: {error}")
    return None


def find_checkpoint(path: Path, names: Collection[str] | None = None) -> Path:
    """The checkpoint that ``path`` means: itself, or the newest whole one of a run. Verified."""
    if (path / MARKER).is_file() or (path / MODEL_FILE).is_file():
        verify(path, names)
        return path
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give the folder of a run or of a checkpoint")
    passed_over: list[str] = []
    found = newest_whole(path, passed_over.append, names)
    if found is None:
        why = f" ({passed_over[0]})" if passed_over else ""
        raise UserError(f"{path} holds no whole checkpoint{why}; train a model first")
    return found


# Reading what was verified


def read_state(folder: Path) -> dict[str, Any]:
    """``state.json`` with its types checked; UserError when it is not one."""
    kinds = {"step": int, "world_size": int, "model": dict, "recipe": dict, "progress": dict}
    with damaged(folder):
        state = read_json(folder / STATE_FILE, CURE)
        for name, kind in kinds.items():
            if not isinstance(state[name], kind):
                raise TypeError(f"{STATE_FILE} has no valid {name!r}")
        if not 1 <= state["world_size"] <= 1_000_000 or state["step"] < 0:
            raise ValueError(f"{STATE_FILE} has impossible figures")
        return state


def learned(run: Path) -> dict[str, Any] | None:
    """The state of a run's newest readable checkpoint; None where it has learned nothing yet."""
    for folder in list_checkpoints(run):
        with suppress(UserError):
            return read_state(folder)
    return None


def read_model(folder: Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Configuration and parameters in a checkpoint."""
    with _utf8_name(folder / MODEL_FILE) as path:
        return GPTConfig.from_dict(read_state(folder)["model"]), load_file(path)


def restore(
    folder: Path, state: dict[str, Any], model: GPT | None, optimizer: MuonAdamW
) -> list[Any]:
    """Fill ``model``, if any, and this rank's share of ``optimizer``, in their own precision.

    Returns every rank's position in the data. Raises UserError when a shape does not fit.
    """
    with damaged(folder, "use the configuration and the recipe it was trained with"):
        if model is not None:
            model.load_state_dict(read_model(folder)[1])
        shards = Shards(folder, state["world_size"])
        optimizer.load_shards(shards.read, state["step"])
        return shards.data


class Shards:
    """The optimizer's state in a checkpoint, whatever number of ranks wrote it."""

    def __init__(self, folder: Path, world_size: int) -> None:
        self.data: list[Any] = []
        """every rank's position in the data"""
        self.ranges: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
        """by parameter, for each rank: its first row, its last row + 1, its file"""
        for rank in range(world_size):
            with _utf8_name(folder / shard_file(rank, world_size)) as path:
                file = safe_open(path, framework="pt")
            state = json.loads(file.metadata()["state"])
            self.data.append(state["data"])
            for name, (start, stop) in state["ranges"].items():
                self.ranges[name].append((int(start), int(stop), file))

    def read(self, name: str, state: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of one state of one parameter, put together from the ranks' shares."""
        pieces: list[Tensor] = []
        key, at = f"{name}/{state}", start
        for first, last, file in sorted(self.ranges[name], key=lambda piece: piece[:2]):
            end = min(stop, last)
            # no rows are a share too: of a matrix with fewer rows than there are ranks
            if first <= at <= end and (at < end or not pieces):
                pieces.append(file.get_slice(key)[at - first : end - first])
                at = end
        if at < stop or not pieces:
            raise UserError(f"there is no optimizer state for {name} (rows {start} to {stop})")
        return torch.cat(pieces)


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
