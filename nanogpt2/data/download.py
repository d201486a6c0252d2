"""Files from the network, whole and verified or not there: shards of the records, CORE's tasks.

A download continues where it broke off, waits and tries again while it gets on, and is checked by
size and SHA-256 before it takes its name. Chapter: data.
"""

from __future__ import annotations

import argparse
import random
import stat
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from nanogpt2.errors import UserError, explain, run_command
from nanogpt2.files import atomic_directory, require_free_space, sha256_of

ATTEMPTS = 6
"""in a row without a new byte, before giving up"""
TIMEOUTS = (10.0, 30.0)
"""seconds to connect, and to wait for the next byte"""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
PIECE = 1 << 20
PARALLEL = 8
_UNREADABLE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error)
AGAIN = "the same command continues from what is already here"


@dataclass(frozen=True)
class Dataset:
    """Shards of documents on the Hugging Face hub, the last one for validation."""

    repository: str
    shards: int

    def names(self, training: int) -> list[str]:
        """The first ``training`` shards and the last; UserError if there are not so many."""
        if not 1 <= training < self.shards:
            raise UserError(
                f"{training} training shards were asked for; {self.repository} has 1 to "
                f"{self.shards - 1}"
            )
        return [f"shard_{i:05d}.parquet" for i in (*range(training), self.shards - 1)]


DATASETS = {
    "fineweb-edu": Dataset("karpathy/fineweb-edu-100b-shuffle", 1823),
    "climbmix": Dataset("karpathy/climbmix-400b-shuffle", 6543),
}


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, and what is known of it."""

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None


class _Broken(Exception):
    """This attempt failed and another may not; ``wait`` is what the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Stopped(Exception):
    """Another download of the same call has failed."""


def fetch(
    remote: Remote,
    headers: dict[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda n: None,
    stop: threading.Event | None = None,
) -> Path:
    """Have ``remote`` at its path, unless it is there; several processes may ask at once.

    ``on_bytes`` hears of each piece. Raises UserError when the server refuses, sends what was not
    announced, or stays silent over all attempts; what arrived stays beside, to be continued.
    """
    path = remote.path
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        if path.is_file() and remote.size in (None, path.stat().st_size):
            return path
        partial = path.with_name(f".{path.name}.partial")
        left, held = ATTEMPTS, -1
        while True:
            try:
                _receive(remote, partial, headers or {}, on_bytes, stop)
                _verify(remote, partial)
                break
            except (_Broken, RequestException, HTTPError) as error:
                reason, asked = error, getattr(error, "wait", 0.0)
            now = partial.stat().st_size if partial.exists() else 0
            left, held = (ATTEMPTS if now > held >= 0 else left) - 1, now
            if left <= 0:
                why = f"could not download {remote.url} ({_short(reason)})"
                raise UserError(f"{why}; check the network: {AGAIN}") from None
            pause = FIRST_WAIT * 2 ** (ATTEMPTS - 1 - left) * random.uniform(0.5, 1.0)
            (stop or threading.Event()).wait(min(max(pause, asked), LONGEST_WAIT))
        partial.replace(path)
    lock.unlink(missing_ok=True)
    return path


def _short(error: Exception) -> str:
    """The cause at the end of a chain of causes, without the addresses of objects."""
    text = str(error)
    for word in ("Name or service not known", "NameResolutionError", "Network is unreachable"):
        if word in text:
            return "the server's name cannot be resolved, or there is no network"
    return "connection refused" if "refused" in text else text[-200:] or type(error).__name__


def _receive(
    remote: Remote,
    partial: Path,
    headers: dict[str, str],
    on_bytes: Callable[[int], None],
    stop: threading.Event | None,
) -> None:
    """Append to ``partial`` what it lacks; _Broken where it ends too early or too late."""
    held = partial.stat().st_size if partial.exists() else 0
    if held and held == remote.size:
        return
    # identity: a compressed transfer would make sizes and ranges mean something else
    asked = {
        **headers,
        "Accept-Encoding": "identity",
        **({"Range": f"bytes={held}-"} if held else {}),
    }
    with requests.get(remote.url, headers=asked, stream=True, timeout=TIMEOUTS) as answer:
        _check_status(remote, answer, partial)
        if answer.status_code != 206:
            held = 0  # the server knows no ranges: from the start
        announced = held + int(answer.headers.get("Content-Length") or 0)
        size = remote.size if remote.size is not None else announced
        if announced > held and announced != size:
            raise _Broken(f"the server announces {announced:,} bytes instead of {size:,}")
        with open(partial, "ab" if held else "wb") as file:
            while piece := answer.raw.read1(PIECE):  # what has come so far: a break loses none
                if stop is not None and stop.is_set():
                    raise _Stopped
                held += len(piece)
                if size and held > size:
                    break
                file.write(piece)
                on_bytes(len(piece))
    if size and held != size:
        if held > size:
            partial.unlink()
        raise _Broken(f"{held:,} of {size:,} bytes came")


def _check_status(remote: Remote, answer: requests.Response, partial: Path) -> None:
    code = answer.status_code
    if code in (408, 425, 429) or code >= 500:
        raise _Broken(f"the server answers {code}", _seconds(answer.headers.get("Retry-After")))
    if code == 416:  # what is held is not a beginning of what is there now
        partial.unlink(missing_ok=True)
        raise _Broken("the server's file is shorter than what is held")
    if code in (401, 403):
        raise UserError(f"{remote.url} may not be read ({code}); log in, or give a token for it")
    if code >= 400:
        raise UserError(f"{remote.url} cannot be had: the server answers {code}; check the address")
    if code == 206:
        start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if start != str(partial.stat().st_size):
            partial.unlink()
            raise _Broken("the server continues at another place than was asked for")


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


def _verify(remote: Remote, partial: Path) -> None:
    if remote.sha256 is not None and sha256_of(partial) != remote.sha256:
        partial.unlink()
        raise _Broken("the SHA-256 of what came is not that of the file")


def fetch_all(
    remotes: Sequence[Remote],
    headers: dict[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """``fetch`` all of them, ``PARALLEL`` at a time; the first failure stops the others."""
    stop = threading.Event()
    with ThreadPoolExecutor(PARALLEL) as pool:
        tasks = [pool.submit(fetch, remote, headers, on_bytes, stop) for remote in remotes]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def unzip(archive: Path, folder: Path, limit: int) -> Path:
    """Unpack ``archive`` as ``folder``, whole or not at all.

    Raises UserError for a damaged archive, an entry that would leave the folder, a link, or more
    than ``limit`` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as content, atomic_directory(folder) as temporary:
            _check_entries(archive, content.infolist(), temporary, limit)
            content.extractall(temporary)
    except UserError:
        raise
    except (*_UNREADABLE, OSError, ValueError, RuntimeError) as error:
        if explain(error) is not None:  # our own disk, not the archive
            raise
        why = f"{archive} is not a whole zip archive ({error})"
        raise UserError(f"{why}; delete it and fetch it again") from None
    return folder


def _check_entries(
    archive: Path, entries: Iterable[zipfile.ZipInfo], folder: Path, limit: int
) -> None:
    total = 0
    for entry in entries:
        target = (folder / entry.filename).resolve()
        if not target.is_relative_to(folder.resolve()) or "\\" in entry.filename:
            raise UserError(
                f"{archive} would write outside its folder ({entry.filename}); do not trust it"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(f"{archive} holds a link ({entry.filename}); do not trust it")
        total += entry.file_size
    if total > limit:
        raise UserError(f"{archive} unpacks to {total:,} bytes, more than the {limit:,} allowed")


def download_dataset(
    name: str,
    folder: Path | str,
    shards: int,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
    endpoint: str | None = None,
) -> Path:
    """The first ``shards`` training shards of a data set and its validation shard, in ``folder``.

    ``on_bytes`` hears of bytes done and in all. Sizes and hashes come from the hub
    (``endpoint``: another one than Hugging Face's).

    Raises UserError for an unknown name, too little disk space, or no network.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    dataset, folder = DATASETS[name], Path(folder)
    missing = [n for n in dataset.names(shards) if not (folder / n).is_file()]
    if not missing:
        return folder
    remotes = _remotes(dataset, missing, folder, endpoint)
    total = sum(remote.size or 0 for remote in remotes)
    require_free_space(folder, total, f"{len(missing)} shards of {name}")
    done, lock = 0, threading.Lock()

    def told(n: int) -> None:
        nonlocal done
        with lock:
            done += n
            on_bytes(min(done, total), total)

    from huggingface_hub.utils import build_hf_headers

    fetch_all(remotes, build_hf_headers(), told)
    return folder


def _remotes(
    dataset: Dataset, names: list[str], folder: Path, endpoint: str | None
) -> list[Remote]:
    """What the hub knows of the files: address, size, SHA-256."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    # the error's own base is that of whichever HTTP library the hub's package is built on
    network_errors: tuple[Any, ...] = (*HfHubHTTPError.__bases__, OSError)
    known: dict[str, RepoFile] = {}
    try:
        for i in range(0, len(names), 100):
            found = HfApi(endpoint=endpoint).get_paths_info(
                dataset.repository, names[i : i + 100], repo_type="dataset"
            )
            known.update({file.path: file for file in found if isinstance(file, RepoFile)})
    except network_errors as error:
        raise UserError(
            f"the hub cannot be asked for {dataset.repository} ({_short(error)}); check the "
            "network, or train on your own shards with --data"
        ) from None
    remotes = []
    for name in names:
        lfs = known[name].lfs if name in known else None
        if lfs is None:
            raise UserError(f"{dataset.repository} has no file {name} any more; use --data")
        url = hf_hub_url(dataset.repository, name, repo_type="dataset", endpoint=endpoint)
        remotes.append(Remote(url, folder / name, known[name].size, lfs.sha256))
    return remotes


def main() -> None:
    """``python -m nanogpt2.data.download fineweb-edu --shards 8 --out data``."""
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    parser = argparse.ArgumentParser(prog="python -m nanogpt2.data.download", description=__doc__)
    parser.add_argument("name", help=", ".join(DATASETS))
    parser.add_argument("--shards", type=int, default=8, help="for training; one more validates")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    options = parser.parse_args()
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(options.name, total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        download_dataset(options.name, options.out, options.shards, told)
    print(options.out)


if __name__ == "__main__":
    run_command(main)
