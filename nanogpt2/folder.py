"""The folder of a run: whose it is, and that one process at a time works in it.

A run writes files with fixed names into the folder that ``--out`` names. It may do so in a folder
that is new, or that holds none of these names, or in which a run began (it marks the folder then):
what a user keeps there under such a name is never overwritten. Chapter: speedrun.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nanogpt2.errors import UserError
from nanogpt2.files import MADE, made_here

NAMES = (
    "attempts.jsonl", "checkpoints", "config.json", "core.json", "evaluation.json", "length.json",
    "metrics.jsonl", "profile", "report.html", "report.md", "samples.json", "stages",
    "training.json",
)  # fmt: skip
"""what a run writes; ``tokenizer/`` and ``data/`` have markers of their own"""
LOCK = "run.lock"
"""an empty file, held by the process at work"""


def is_run(out: Path) -> bool:
    """Whether a run began in ``out`` (a copy of its checkpoints alone will do)."""
    return made_here(out) == {MADE} or any(out.glob("checkpoints/step_*/COMPLETE"))


def _in_the_way(out: Path) -> str | None:
    """A name in ``out`` that a run would write over, and that is not a run's."""
    if os.path.lexists(out / MADE) and not made_here(out):
        return MADE
    if made_here(out) == {MADE}:
        return None
    taken = [name for name in (*NAMES, LOCK) if os.path.lexists(out / name)]
    if is_run(out):  # by its checkpoints, which it goes on from: the rest may be anybody's
        taken.remove("checkpoints")
    if taken == [LOCK] and _is_empty_file(out / LOCK):
        return None  # of a run that was killed before it began
    return taken[0] if taken else None


def _is_empty_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == 0


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder of a run, and be the only process at work in it.

    Raises UserError where another one is, or where a file of a run's name is not a run's. If no
    run begins while it is claimed, nothing of it stays.
    """
    # ``new/..`` is nothing yet, and a folder that exists as soon as ``new`` does
    if name := _in_the_way(Path(os.path.realpath(out))):
        raise UserError(
            f"{out} holds {name}, which no run of this program made, and it would be "
            "overwritten; name another --out"
        )
    new = [place for place in (out, *out.parents) if not place.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); name another --out") from None
    path = out / LOCK
    made = not path.exists()
    lock = FileLock(path, fallback_to_soft=False)  # a soft one would outlive a kill
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another run is at work in {out}; wait for it or name another --out"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise  # else: some network disks have no locks
    try:
        yield
    finally:
        if not is_run(out):  # nothing began here
            with suppress(OSError):
                if made:
                    path.unlink()
                for place in new:
                    place.rmdir()
        lock.release()
