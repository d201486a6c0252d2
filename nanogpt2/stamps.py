"""What a stage leaves beside its results, so that the next call knows that they are whole.

A stamp holds a digest of the stage's inputs and, of each file it made, the size and (of files up
to 64 MiB) the SHA-256. It is written last. A stage is skipped only when its stamp agrees with
today's inputs and with the files on disk: if a file was cut short, changed or taken away, it is
made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanogpt2.files import read_json, sha256_of, write_json

HASHED_BYTES = 64 * 2**20


def digest(values: Any) -> str:
    """SHA-256 of plain values (what JSON can hold), whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size} | ({"sha256": sha256_of(path)} if size <= HASHED_BYTES else {})


class Stamps:
    """The stamps of the stages of one run, in ``folder/stages/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, stage: str) -> Path:
        return self.folder / "stages" / f"{stage}.json"

    def valid(self, stage: str, inputs: Any) -> bool:
        """Whether the stage ended with the same ``inputs`` and its files are as it left them."""
        try:
            stamp = read_json(self._path(stage))
            return stamp["inputs"] == digest(inputs) and all(
                _fingerprint(self.folder / name) == known for name, known in stamp["files"].items()
            )
        except (ValueError, OSError, KeyError, TypeError, AttributeError):
            return False  # no stamp, a damaged one, or a file of it is gone

    def write(self, stage: str, inputs: Any, files: Iterable[Path]) -> None:
        """Record that the stage is done and which files (folders: all within) it made."""
        made = [
            path
            for file in files
            for path in (sorted(file.rglob("*")) if file.is_dir() else [file])
            if path.is_file()
        ]
        stamp = {
            "inputs": digest(inputs),
            "files": {str(path.relative_to(self.folder)): _fingerprint(path) for path in made},
        }
        write_json(self._path(stage), stamp)

    def made(self, stage: str) -> str:
        """A digest of what the stage made, as an input of the stages after it."""
        path = self._path(stage)
        return sha256_of(path) if path.is_file() else ""
