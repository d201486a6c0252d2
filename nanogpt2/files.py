"""Files that are whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nanogpt2.errors import UserError

LARGEST_TEXT = 256 * 2**20
"""bytes of a text file that is read as a whole; ours have a hundredth of it"""
MADE = "nanogpt2.json"
"""the marker in every folder that this program made as a whole: it lists what is in it"""


def flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put_in_place(temporary: Path, path: Path) -> None:
    """Let the finished ``temporary`` become ``path`` in one step that survives a power cut."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    flush_folder(path.parent)


def _beside(path: Path) -> Path:
    """A name that nobody has, for what is to become ``path``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, else it is removed.

    Raises OSError as the file system does (disk full, no permission).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.touch()  # not mkstemp, whose files may be read by this user only
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def mark(folder: Path, files: Iterable[str] = (), **more: str) -> None:
    """Write the marker into a folder of this program; the ``files`` in it may be replaced.

    ``more``: what else the marker is to say, by name.
    """
    write_json(folder / MADE, {"made_by": "nanogpt2", **more, "files": sorted({*files, MADE})})


def made_here(folder: Path) -> set[str]:
    """What in ``folder`` is this program's own, its marker among it; nothing without a marker."""
    try:
        marker = json.loads((folder / MADE).read_text(encoding="utf-8"))
        return set(marker["files"]) if marker["made_by"] == "nanogpt2" else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _foreign(folder: Path) -> str | None:
    """Something in ``folder`` that this program did not make, as a path within it."""
    ours = made_here(folder)
    inside = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    return next((name for name in inside if name not in ours), None)


def _real(path: Path) -> Path:
    """``path`` without links and ``..``, whether it exists or not."""
    return Path(os.path.realpath(path))


def require_replaceable(path: Path | str, *inputs: Path | str) -> None:
    """Raise UserError unless a finished folder may become ``path`` and nothing of the user's goes.

    It may where nothing is yet, or an empty folder, or one that this program made (its marker
    ``nanogpt2.json`` lists the files) and to which nothing was added. Never a link, never the
    working directory, an input, or a folder that holds one.
    """
    path = Path(path)
    if path.is_symlink():
        raise UserError(f"{path} is a link; name the folder itself, or one that does not exist yet")
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; name a folder that does not exist yet")
    whole = _real(path)
    for kept in (Path(), *map(Path, inputs)):
        if _real(kept).is_relative_to(whole):
            what = "is the folder you are in, or holds it" if kept == Path() else f"holds {kept}"
            raise UserError(f"{path} {what} and would be replaced; name a new folder")
    if (stranger := _foreign(path)) is not None:
        raise UserError(
            f"{path} holds {stranger}, which this program did not make, and would be replaced; "
            "name a new folder, or move that one away"
        )


@contextmanager
def atomic_directory(path: Path | str, *inputs: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it becomes ``path``, else it is removed.

    An older ``path`` is replaced as a whole if this program made it (``require_replaceable``, with
    the ``inputs`` that the work reads); UserError before the work begins if it did not.
    """
    path = Path(path)
    require_replaceable(path, *inputs)
    path = _real(path)  # ``data/../data`` leads nowhere while ``data`` is being replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        mark(temporary, (p.relative_to(temporary).as_posix() for p in temporary.rglob("*")))
        require_replaceable(path, *inputs)  # once more: the work may have taken hours
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        # a folder's name need not be UTF-8; its odd bytes (lone surrogates) get JSON's own escape
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def read_text(path: Path | str, cure: str) -> str:
    """Read a UTF-8 file as a whole; raises UserError, with the ``cure``, where there is none such.

    A file of more than ``LARGEST_TEXT`` bytes is not read at all. A byte order mark, which some
    editors put first, is passed over.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_TEXT:
            size = path.stat().st_size
            raise UserError(f"{path} has {size:,} bytes, too many for what it should be; {cure}")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {cure}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); {cure}") from None


def read_json(path: Path | str, cure: str = "delete it to have it made again") -> Any:
    """Read JSON; a missing or damaged file raises UserError with the ``cure``."""
    text = read_text(path, cure)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {cure}") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, none without it; a torn line is passed over."""
    found = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            if isinstance(values := json.loads(line), dict):
                found.append(values)
    return found


def named_path(text: str) -> Path:
    """The path in an option; argparse refuses an empty one, which would mean this very folder.

    A shell passes one for a variable that is not set: ``--out "$RUN"``.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; name a folder or a file")
    return Path(text)


def has_utf8_name(path: Path) -> bool:
    """Whether libraries that take paths as UTF-8 can open ``path``; Unix allows any bytes."""
    return not re.search("[\ud800-\udfff]", str(path))  # lone surrogates, which stand for others


def cache_place() -> Path | None:
    """This user's folder for what can be had again; None for a user without a home."""
    from platformdirs import user_cache_dir  # few commands need it

    try:
        folder = Path(user_cache_dir("nanogpt2"))
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older versions leave the ~ as it is


def user_cache(cure: str) -> Path:
    """``cache_place``, made where it is missing; UserError, with the ``cure``, if it cannot be."""
    folder = cache_place()
    if folder is None:
        raise UserError(f"this user has no home folder to keep files in; {cure}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); {cure}") from None
    return folder


def require_file_place(path: Path, what: str) -> None:
    """Raise UserError unless a file can be written at ``path``; ``what`` names the option.

    Nothing stays behind: missing folders are made when the file is.
    """
    if _real(path).is_dir():  # ``new/..`` too, which is one as soon as ``new`` is made
        raise UserError(f"{what} {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UserError(f"{what} {path} is a device, not a file; name a file")
    if path.is_symlink():
        raise UserError(f"{what} {path} is a link, which would be replaced; name the file itself")
    _require_writable(path.absolute().parent, f"{what} {path}")


def require_folder_place(path: Path, what: str) -> None:
    """Raise UserError unless a folder can be made or filled at ``path``; nothing stays behind."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{what} {path} is a file; name a folder")
    _require_writable(path, f"{what} {path}")


def _nearest(folder: Path) -> Path:
    """``folder``, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def _require_writable(folder: Path, named: str) -> None:
    """UserError unless files can be made in ``folder``, or in the nearest one above that exists."""
    try:
        tempfile.TemporaryFile(dir=_nearest(folder)).close()
    except OSError as error:
        raise UserError(
            f"{named} cannot be written ({error.strerror}); name a place that you may write to"
        ) from None


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file as hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def require_free_space(folder: Path | str, needed: int, what: str) -> None:
    """Raise UserError unless the disk that holds ``folder`` has ``needed`` bytes free."""
    folder = _nearest(_real(Path(folder)))  # a link to nothing yet has a disk too
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free; "
            "free some space or choose another folder"
        )
