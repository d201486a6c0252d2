"""What a user can get wrong, said in one sentence: cause and cure, no traceback, exit code 2."""

from __future__ import annotations

import atexit
import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


class UserError(ValueError):
    """A mistake the user can mend; the message is one clear sentence with cause and cure."""


class StopRequested(Exception):
    """A request to stop came while something was under way that may be dropped half-way."""


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


def open_streams() -> None:
    """Let no character end a command, whatever the terminal's encoding.

    What standard output or error cannot show appears as an escape (``\\xe9``, ``\\u20ac``); bytes
    that standard input cannot read pass as lone surrogates, for ``readable`` to make text of.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def readable(text: str) -> str:
    """Text that was typed or given as an argument, without lone surrogates.

    They stand for bytes that the locale's encoding does not know (PEP 383), and the bytes are read
    as UTF-8, the text of most terminals; what is no UTF-8 either becomes U+FFFD.
    """
    with suppress(UnicodeEncodeError):
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode()


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's ``main`` and exit: 0 when well, 2 on a user's mistake, 130 on Ctrl-C."""
    open_streams()
    try:
        code = main() or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk shows here, where it can be explained
        _leave(code)
    except BrokenPipeError:
        _forget_output()  # the reader of a pipe (head, less) has seen enough
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        if isinstance(error, OSError) and not error.filename:
            _forget_output()  # it may be standard output that refuses, again at the exit
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)


def _leave(code: int) -> NoReturn:
    """Exit; as one of several ranks after what was asked for at exit, but with Python left whole.

    Gloo's threads may yet let go of a tensor when Python's lock is gone already, which aborts a
    process that has done all of its work (pytorch's pull request 179291 and issue 190489).
    """
    if "LOCAL_RANK" in os.environ:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _forget_output() -> None:
    """Send standard output nowhere, so that the flush at exit does not fail as well."""
    with suppress(OSError, AttributeError):  # it is no file of the system's, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
