"""One file from the network: whole and verified, or not there.

Asking is the hub client's part: tokens, mirrors, proxies, offline mode. What it leaves out stands
here: a broken transfer goes on from its last byte, in the next process too, and the file takes its
name when its size and SHA-256 are right. (The client's own downloads start over and check no hash;
pooch checks the hash and starts over.) Chapter: tokens_and_rows.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from nanogpt2.errors import UserError, explain
from nanogpt2.files import put_in_place, sha256_of

ATTEMPTS = 6
"""in a row without a new byte, before giving up"""
TIMEOUT = 15.0
"""seconds to connect, and to wait for the next byte"""
FIRST_WAIT, LONGEST_WAIT = 0.5, 300.0
"""seconds before the second attempt, and at most, whatever a server asks for"""
PARALLEL = 8
httpx: Any = sys.modules[HfHubHTTPError.__bases__[0].__module__]
"""the HTTP library under the hub's client: httpx, or its successor of another name"""
SETTINGS = "check what is set for the network: HF_ENDPOINT, HF_TOKEN, the proxy, certificates"

Item = TypeVar("Item")
Result = TypeVar("Result")
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, and what is known of it."""

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None
    limit: int = 1 << 40
    """bytes that are taken at most where the size is not known"""

    @property
    def partial(self) -> Path:
        """What has come so far, beside the place of the whole."""
        return self.path.with_name(f".{self.path.name}.partial")

    @property
    def held(self) -> int:
        """Bytes of it."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def is_at(self, path: Path) -> bool:
        """Whether the whole file is there."""
        return (
            path.is_file()
            and self.size in (None, path.stat().st_size)
            and self.sha256 in (None, sha256_of(path))
        )


class Broken(Exception):
    """This attempt failed and another may not."""


class Stopped(Exception):
    """Another transfer of the same call has failed."""


def fetch(
    remote: Remote,
    headers: Mapping[str, str] | None = None,
    on_bytes: OnBytes = lambda n: None,
    stop: threading.Event | None = None,
) -> Path:
    """Have ``remote`` at its path, unless it is there; several processes may ask at once.

    ``on_bytes`` hears of each piece. Raises UserError when the server refuses, or nothing whole
    came over all attempts; what did come stays beside, to be continued.
    """
    stop = stop or threading.Event()
    remote.path.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        if not 0 < remote.held == remote.size:
            _receive(remote, headers or {}, on_bytes, stop)
        if not remote.is_at(remote.partial):
            remote.partial.unlink()
            raise Broken("what came does not have the size and SHA-256 of the file")

    lock = remote.path.with_name(f".{remote.path.name}.lock")
    with FileLock(lock).acquire(cancel_check=stop.is_set):
        if not remote.is_at(remote.path):
            persist(attempt, remote.url, stop, lambda: remote.held)
            put_in_place(remote.partial, remote.path)
    lock.unlink(missing_ok=True)  # whoever still waits for it, or makes it anew, finds the file
    return remote.path


def in_parallel(
    task: Callable[[Item], Result], items: Iterable[Item], stop: threading.Event
) -> list[Result]:
    """``task`` of each item, ``PARALLEL`` at a time; the first failure sets ``stop``."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        running = [pool.submit(task, item) for item in items]
        try:
            for ended in as_completed(running):
                ended.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [ended.result() for ended in running]


def persist(
    attempt: Callable[[], Result],
    url: str,
    stop: threading.Event,
    held: Callable[[], int] = lambda: 0,
) -> Result:
    """What ``attempt`` returns, tried again with growing pauses while it gets on.

    ``held`` says how far the attempts have got. Raises UserError after ``ATTEMPTS`` in a row that
    got no further, or at once where no other will; Stopped when ``stop`` is set.
    """
    failures, furthest = 0, held()
    while not stop.is_set():
        try:
            return attempt()
        except OfflineModeIsEnabled as error:
            raise UserError(str(error)) from None
        except httpx.UnsupportedProtocol as error:  # an address without http
            raise _unaskable(url, error) from None
        except (Broken, httpx.HTTPError) as error:
            reason, asked = _reason(error, url)
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            if explain(error) is not None:  # said already, or of our own disk
                raise
            raise _unaskable(url, error) from None
        failures = 1 if held() > furthest else failures + 1
        furthest = max(furthest, held())
        if failures >= ATTEMPTS:
            raise UserError(
                f"could not download {url} ({reason}); check the network: "
                "the same command continues from what is already here"
            )
        pause = FIRST_WAIT * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
        stop.wait(min(max(pause, asked), LONGEST_WAIT))
    raise Stopped


def _unaskable(url: str, error: Exception) -> UserError:
    return UserError(f"{url} cannot be asked for ({error}); {SETTINGS}")


def _reason(error: Exception, url: str) -> tuple[str, float]:
    """Why an attempt failed, and how many seconds the server asks to wait before another.

    Raises UserError for an answer that will always be the same.
    """
    answer = getattr(error, "response", None)
    if answer is None:
        text = str(error)
        nameless = ("Name or service not known", "name resolution", "Network is unreachable")
        if any(words in text for words in nameless):
            return "the server's name cannot be resolved, or there is no network", 0.0
        refused = "connection refused" if "refused" in text else text[-200:]
        return refused or type(error).__name__, 0.0
    code = answer.status_code
    if code in (401, 403):
        raise UserError(f"{url} may not be read ({code}); log in, or give a token for it")
    if code < 500 and code not in (408, 425, 429):
        raise UserError(f"{url} cannot be had: the server answers {code}; check the address")
    return f"the server answers {code}", _seconds(answer.headers.get("Retry-After", "0"))


def _seconds(text: str) -> float:
    """Retry-After: a number of seconds, or a date."""
    for read in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        try:
            return read(text)
        except (ValueError, TypeError):
            pass
    return 0.0


def _receive(
    remote: Remote, headers: Mapping[str, str], on_bytes: OnBytes, stop: threading.Event
) -> None:
    """Append to the partial file what it lacks, down to the byte at which the connection breaks."""
    held = remote.held
    # identity: a compressed transfer would make sizes and ranges mean something else
    asked = {**headers, "Accept-Encoding": "identity"}
    if held:
        asked["Range"] = f"bytes={held}-"
    with get_session().stream("GET", remote.url, headers=asked, timeout=TIMEOUT) as answer:
        from_here = answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")
        if answer.status_code == 416 or (answer.status_code == 206 and not from_here):
            remote.partial.unlink(missing_ok=True)
            raise Broken("the server does not continue from what is held")
        answer.raise_for_status()
        if answer.status_code != 206:
            held = 0  # the server knows no ranges: from the start
        length = answer.headers.get("Content-Length")
        size = remote.size if length is None else held + int(length)
        if remote.size not in (None, size):
            raise Broken(f"the server announces {size:,} bytes instead of {remote.size:,}")
        most = remote.limit if size is None else size
        if most > remote.limit:
            raise UserError(f"{remote.url} has {most:,} bytes, more than expected; do not trust it")
        with open(remote.partial, "ab" if held else "wb") as file:
            for piece in answer.iter_raw():
                if stop.is_set():
                    raise Stopped
                if file.tell() + len(piece) > most:
                    remote.partial.unlink()
                    raise Broken(f"more than {most:,} bytes came")
                file.write(piece)
                on_bytes(len(piece))
