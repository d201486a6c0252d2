"""What a user can get wrong, said in one sentence: cause and cure, no traceback, exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """A mistake the user can mend; the message is one clear sentence with cause and cure."""


_DISK = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than allowed here; raise the limit (ulimit -f)",
    errno.EACCES: "no permission; choose a folder you may write to, or change its permissions",
    errno.EPERM: "not permitted; choose a folder you may write to, or change its permissions",
    errno.EEXIST: "it is there already, and is no folder; name another folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.ELOOP: "it is a link, or links lead from it in a circle; name another folder",
    errno.ENOTDIR: "it is a file, not a folder; name another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
}


def explain(error: BaseException) -> str | None:
    """The sentence for an error that a user can cause, or None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{_DISK[error.errno]}"
    return None


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's ``main`` and exit: 0 when well, 2 on a user's mistake, 130 on Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except BrokenPipeError:
        # the reader of a pipe (head, less) has seen enough; silence the flush at exit as well
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
