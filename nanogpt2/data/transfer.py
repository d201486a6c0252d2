"""One file from the network: whole and verified, or not there.

A transfer goes on where it broke off and is tried again while it gets on; size and SHA-256 are
checked before the file takes its name. The hub's own client continues but checks no hash, and
pooch checks but does not continue: hence this room. Chapter: data.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import requests
from filelock import FileLock, Timeout
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from nanogpt2.errors import UserError
from nanogpt2.files import put_in_place, sha256_of

ATTEMPTS = 6
"""in a row without a new byte, before giving up"""
TIMEOUTS = (10.0, 15.0)
"""seconds to connect, and to wait for the next byte"""
FIRST_WAIT, LONGEST_WAIT = 0.5, 300.0
"""seconds before the second attempt, and at most, whatever a server asks for"""
PIECE = 1 << 20
PARALLEL = 8

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

    def is_here(self) -> bool:
        """Whether the whole file is in its place."""
        return self.path.is_file() and self._fits(self.path)

    def _fits(self, path: Path) -> bool:
        return self.size in (None, path.stat().st_size) and (
            self.sha256 is None or sha256_of(path) == self.sha256
        )

    def check(self) -> None:
        """Throw what came away and raise Broken where it is not the file."""
        if not self._fits(self.partial):
            self.partial.unlink()
            raise Broken("what came does not have the size and SHA-256 of the file")


class Broken(Exception):
    """This attempt failed and another may not; ``wait``: seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


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
        _receive(remote, headers or {}, on_bytes, stop)
        remote.check()

    lock = remote.path.with_name(f".{remote.path.name}.lock")
    with _locked(lock, stop):
        if not remote.is_here():
            persist(attempt, remote.url, stop, lambda: remote.held)
            put_in_place(remote.partial, remote.path)
    lock.unlink(missing_ok=True)  # whoever still waits for it, or makes it anew, finds the file
    return remote.path


def fetch_all(
    remotes: Sequence[Remote],
    headers: Mapping[str, str] | None = None,
    on_bytes: OnBytes = lambda n: None,
) -> None:
    """``fetch`` each of them; the first failure stops the others."""
    stop = threading.Event()
    in_parallel([partial(fetch, remote, headers, on_bytes, stop) for remote in remotes], stop)


def in_parallel(tasks: Sequence[Callable[[], Result]], stop: threading.Event) -> list[Result]:
    """What the tasks return, ``PARALLEL`` at a time; the first failure sets ``stop``."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        running = [pool.submit(task) for task in tasks]
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
    got no further, Stopped when ``stop`` is set.
    """
    failures, furthest = 0, held()
    while True:
        if stop.is_set():
            raise Stopped
        try:
            return attempt()
        except (Broken, RequestException, HTTPError) as error:
            reason, asked = short_reason(error), getattr(error, "wait", 0.0)
        failures = 1 if held() > furthest else failures + 1
        furthest = max(furthest, held())
        if failures >= ATTEMPTS:
            raise UserError(
                f"could not download {url} ({reason}); check the network: "
                "the same command continues from what is already here"
            )
        pause = FIRST_WAIT * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
        stop.wait(min(max(pause, asked), LONGEST_WAIT))


def short_reason(error: BaseException) -> str:
    """The end of an error's message, or what it means for a user."""
    text = str(error)
    for word in ("Name or service not known", "name resolution", "Network is unreachable"):
        if word in text:
            return "the server's name cannot be resolved, or there is no network"
    return "connection refused" if "refused" in text else text[-200:] or type(error).__name__


def check_answer(url: str, code: int, headers: Mapping[str, str]) -> None:
    """Raise Broken for a status that may pass, UserError for one that will not."""
    if code in (408, 425, 429) or code >= 500:
        raise Broken(f"the server answers {code}", _seconds(headers.get("Retry-After")))
    if code in (401, 403):
        raise UserError(f"{url} may not be read ({code}); log in, or give a token for it")
    if code >= 400:
        raise UserError(f"{url} cannot be had: the server answers {code}; check the address")


def _seconds(text: str | None) -> float:
    """Retry-After: a number of seconds, or a date."""
    try:
        return float(text or 0)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(str(text)).timestamp() - time.time()
    except (ValueError, TypeError):
        return 0.0


@contextmanager
def _locked(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock, waiting for it no longer than ``stop`` allows."""
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            if stop.is_set():
                raise Stopped from None
    try:
        yield
    finally:
        lock.release()


def _receive(
    remote: Remote, headers: Mapping[str, str], on_bytes: OnBytes, stop: threading.Event
) -> None:
    """Append to the partial file what it lacks; Broken where that ends too early or too late."""
    held = remote.held
    if held and held == remote.size:
        return
    # identity: a compressed transfer would make sizes and ranges mean something else
    asked = {**headers, "Accept-Encoding": "identity"}
    if held:
        asked["Range"] = f"bytes={held}-"
    with requests.get(remote.url, headers=asked, stream=True, timeout=TIMEOUTS) as answer:
        _check_range(remote, answer, held)
        check_answer(remote.url, answer.status_code, answer.headers)
        if answer.status_code != 206:
            held = 0  # the server knows no ranges: from the start
        announced = answer.raw.length_remaining  # None: it does not say
        size = remote.size if announced is None else held + announced
        if remote.size not in (None, size):
            raise Broken(f"the server announces {size:,} bytes instead of {remote.size:,}")
        most = remote.limit if size is None else size
        if most > remote.limit:
            raise UserError(f"{remote.url} has {most:,} bytes, more than expected; do not trust it")
        with open(remote.partial, "ab" if held else "wb") as file:
            while piece := answer.raw.read1(PIECE):  # what has come so far: a break loses none
                if stop.is_set():
                    raise Stopped
                held += len(piece)
                if held > most:
                    break
                file.write(piece)
                on_bytes(len(piece))
    if held > most:
        remote.partial.unlink()
    if held > most or size not in (None, held):
        raise Broken(f"{held:,} of {most:,} bytes came")


def _check_range(remote: Remote, answer: requests.Response, held: int) -> None:
    """Throw away what is held where the server does not continue from there."""
    elsewhere = answer.status_code == 206 and (
        answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        != str(held)
    )
    if elsewhere or answer.status_code == 416:
        remote.partial.unlink(missing_ok=True)
        raise Broken("the server does not continue from what is held")
