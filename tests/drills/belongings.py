"""What lies in a folder before and after: all that is a user's must still be there, unchanged."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from nanogpt2.files import MADE

Snapshot = dict[str, bytes | str | None]
"""path within the folder -> content; of a link its target, of a folder None"""

CHECKPOINTS = re.compile(r"checkpoints(/[^/]+(/(COMPLETE|state\.json|[a-z0-9_]+\.safetensors))?)?")
OF_A_RUN = re.compile(
    r"(config|core|evaluation|length|samples|training)\.json|metrics\.jsonl|report\.(html|md)|run\.lock"
    rf"|stages(/\w+\.json)?|{CHECKPOINTS.pattern}"
)
"""what a run writes, as paths within its folder"""
_BEGAN = re.compile(r"(.*/)?checkpoints/step_[^/]*/COMPLETE")
_IN_STEP = re.compile(r"(.*checkpoints/step_\d{6,})(/.*)")
"""a checkpoint that is damaged is set aside, with all that is in it"""
_UNFINISHED = (".partial", ".old")


def snapshot(folder: Path) -> Snapshot:
    """Every path below ``folder``, with what is there."""
    found: Snapshot = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            inside = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[inside] = os.readlink(path)
            else:
                found[inside] = Path(path).read_bytes() if name in files else None
    return found


def made_by_program(found: Snapshot) -> set[str]:
    """The paths that the program may replace or remove.

    What a marker lists; what a run writes in the folder of a run, which is marked; and where there
    is a checkpoint that was once whole, the checkpoints.
    """
    ours: set[str] = set()
    for path, content in found.items():
        folder = path[: path.rfind("/") + 1]
        if os.path.basename(path) == MADE and (listed := _listed(content)):
            ours |= {folder + name for name in listed}
            if listed == [MADE]:  # others are a tokenizer's, a corpus's, ...
                ours |= _below(folder, OF_A_RUN, found)
        if match := _BEGAN.fullmatch(path):
            ours |= _below(match[1] or "", CHECKPOINTS, found)
    return ours


def _below(folder: str, kind: re.Pattern[str], found: Snapshot) -> set[str]:
    inside = (path for path in found if path.startswith(folder))
    return {path for path in inside if kind.fullmatch(path[len(folder) :])}


def _listed(content: bytes | str | None) -> list[str]:
    try:
        marker = json.loads(content) if isinstance(content, bytes) else {}
        files = marker["files"] if marker["made_by"] == "nanogpt2" else []
        return [name for name in files if isinstance(name, str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """What became of the user's paths, and what was left half-written: one line each."""
    ours, lines = made_by_program(before), []
    for path, content in before.items():
        places = [path]
        if (match := _IN_STEP.fullmatch(path)) and match[1] in ours:
            places += [f"{match[1]}.damaged{n}{match[2]}" for n in ("", 1, 2)]
        if path in ours or any(p in after and after[p] == content for p in places):
            continue
        lines.append(f"{path!r} {'is changed' if path in after else 'is gone'}")
    new = set(after) - set(before)
    return lines + [f"{path!r} is left behind" for path in new if path.endswith(_UNFINISHED)]


def make_home(folder: Path) -> None:
    """A user's folder: a thesis, notes, a table, links, and names of all kinds."""
    odd = (os.fsdecode(b"caf\xe9.txt"), "na\u00efve \u6771\u4eac \U0001f642.txt", "two\nlines", " ")
    for name in ("thesis.txt", "notes/monday.md", "notes/a/b/c.txt", "table.csv", MADE, *odd):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name!r}: years of work".encode())
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("thesis.txt")
    (folder / "link to a folder").symlink_to("notes")
    (folder / "link to nothing").symlink_to("nowhere")
