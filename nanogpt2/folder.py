"""The folder of a run: whose it is, and that one process at a time works in it.

A run writes files with fixed names into the folder that ``--out`` names. It may do so in a folder
that is new, or that holds none of these names, or in which a run began (it marks the folder then):
what a user keeps there under such a name is never overwritten. Chapter: the speedrun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nanogpt2.errors import UserError
from nanogpt2.files import made_here

NAMES = (
    "checkpoints", "config.json", "core.json", "evaluation.json", "metrics.jsonl", "report.html",
    "report.md", "samples.json", "stages", "training.json",
)  # fmt: skip
"""what a run writes; ``tokenizer/`` and ``data/`` have markers of their own"""


def is_run(out: Path) -> bool:
    """Whether a run began in ``out`` (a copy of its checkpoints alone will do)."""
    return bool(made_here(out)) or any(out.glob("checkpoints/step_*/COMPLETE"))


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder of a run, and be the only process at work in it.

    Raises UserError where another one is, or where a file of a run's name is not a run's. If no
    run begins while it is claimed, nothing of it stays.
    """
    taken = [name for name in NAMES if (out / name).exists() or (out / name).is_symlink()]
    if taken and not is_run(out):
        raise UserError(
            f"{out} holds {taken[0]}, which no run of this program made, and it would be "
            "overwritten; name another --out"
        )
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out} cannot be made ({error.strerror}); name another --out") from None
    path = out / "run.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another run is at work in {out}; wait for it or name another --out"
        ) from None
    except NotImplementedError:
        pass  # some network disks have no locks
    try:
        yield
    finally:
        if not is_run(out):  # nothing began here
            with suppress(OSError):
                path.unlink()
                if new:
                    out.rmdir()
        lock.release()
