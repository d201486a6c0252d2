"""The records' shards and CORE's tasks from where they are public, into a folder.

``python -m nanogpt2.data.download fineweb-edu|climbmix|core``: ``transfer.py`` has how one file is
fetched; here is which files, how large they are and what they hold. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import argparse
import json
import stat
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from nanogpt2.data.shards import open_shard
from nanogpt2.data.transfer import TIMEOUT, Remote, fetch, in_parallel, persist
from nanogpt2.errors import UserError, explain, run_command
from nanogpt2.files import (
    MADE,
    atomic_directory,
    made_here,
    mark,
    named_path,
    require_folder_place,
    require_free_space,
    require_replaceable,
)

BUNDLE_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
BUNDLE_SHA256 = "90a7c19e28ee7a52b4f6e1f87658deb9fde7f63deba2379045bdb1fe9ea5d200"
BUNDLE_BYTES = 1_000_000_000
"""at most, packed or unpacked; the archive has 162 MB"""
UNREADABLE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError,
    ValueError, RuntimeError,
)  # fmt: skip
"""what zipfile raises for an archive that is damaged, encrypted or of another kind"""


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


def unzip(archive: Path, folder: Path, limit: int) -> Path:
    """Unpack ``archive`` as ``folder``, whole or not at all.

    Raises UserError for a damaged archive, an entry that would leave the folder, a link, or more
    than ``limit`` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as content, atomic_directory(folder) as temporary:
            for entry in content.infolist():
                name, root = entry.filename, temporary.resolve()
                if not (root / name).resolve().is_relative_to(root) or "\\" in name:
                    why = f"{archive} would write outside its folder ({name})"
                    raise UserError(f"{why}; do not trust it")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise UserError(f"{archive} holds a link ({name}); do not trust it")
            total = sum(entry.file_size for entry in content.infolist())
            if total > limit:
                why = f"{archive} unpacks to {total:,} bytes"
                raise UserError(f"{why}, more than the {limit:,} allowed; do not trust it")
            content.extractall(temporary)
    except UNREADABLE as error:
        if explain(error) is not None:  # said already, or of our own disk
            raise
        why = f"{archive} is not a whole zip archive ({error})"
        raise UserError(f"{why}; delete it and fetch it again") from None
    return folder


def download_dataset(
    name: str,
    folder: Path | str,
    shards: int,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
    endpoint: str | None = None,
) -> Path:
    """The first ``shards`` training shards of a data set and its validation shard, in ``folder``.

    ``on_bytes`` hears of bytes done and in all. Sizes and hashes come from the hub (``endpoint``:
    another one than Hugging Face's); shards that are here and readable ask nobody.

    Raises UserError for an unknown name, a folder with shards of another data set, too little disk
    space, or no network.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    dataset, folder = DATASETS[name], Path(folder)
    if (other := _data_set_in(folder)) not in (None, name):
        raise UserError(f"{folder} holds shards of {other}, by the same names; name another folder")
    missing = [file for file in dataset.names(shards) if not _is_shard(folder / file)]
    if not missing:
        return folder
    foreign = next((file for file in missing if (folder / file).exists()), None)
    if foreign and not made_here(folder):
        raise UserError(
            f"{folder / foreign} is not a readable shard, and this program did not fetch it; "
            "move it away, or name another folder"
        )
    stop, lock = threading.Event(), threading.Lock()

    def ask(file: str) -> Remote:  # the etag of a file in large file storage is its SHA-256
        url = hf_hub_url(dataset.repository, file, repo_type="dataset", endpoint=endpoint)
        known = persist(lambda: get_hf_file_metadata(url, timeout=TIMEOUT), url, stop)
        if known.size is None or len(known.etag or "") != 64:
            raise UserError(f"{url}: the hub does not tell its size and SHA-256; use --data")
        return Remote(url, folder / file, known.size, known.etag)

    remotes = in_parallel(ask, missing, stop)
    total, done = sum(r.size or 0 for r in remotes), sum(r.held for r in remotes)
    require_free_space(folder, total - done, f"{len(missing)} shards of {name}")
    if not folder.is_dir() or not any(folder.iterdir()):
        mark(folder, data_set=name)

    def told(n: int) -> None:
        nonlocal done
        with lock:
            done += n
            on_bytes(min(done, total), total)

    headers = build_hf_headers()
    in_parallel(lambda remote: fetch(remote, headers, told, stop), remotes, stop)
    on_bytes(total, total)
    return folder


def _data_set_in(folder: Path) -> str | None:
    """Which one an earlier call brought."""
    with suppress(OSError, ValueError, AttributeError):
        found: str | None = json.loads((folder / MADE).read_text("utf-8")).get("data_set")
        return found
    return None


def _is_shard(path: Path) -> bool:
    try:
        return open_shard(path).num_row_groups > 0
    except UserError:
        return False


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def download_bundle(
    folder: Path | str,
    on_bytes: Callable[[int], None] = lambda n: None,
    url: str = BUNDLE_URL,
    sha256: str = BUNDLE_SHA256,
) -> Path:
    """CORE's tasks in ``folder``, fetched and unpacked unless they are there; where they lie in it.

    Raises UserError when they cannot be had, or the folder holds something else.
    """
    folder = Path(folder)
    if not _is_filled(folder):
        require_replaceable(folder)  # before the work, not after it
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_filled(folder):  # by another process meanwhile
                archive = folder.with_name(f".{folder.name}.zip")
                require_free_space(folder.parent, 2 * BUNDLE_BYTES, "the CORE bundle")
                fetch(Remote(url, archive, sha256=sha256, limit=BUNDLE_BYTES), on_bytes=on_bytes)
                unzip(archive, folder, limit=BUNDLE_BYTES)
                archive.unlink()
    found = next(folder.rglob("core.yaml"), None)
    if found is None:
        raise UserError(f"{folder} holds no core.yaml; delete it, or name another folder")
    return found.parent


@contextmanager
def coming(name: str, shards: int, folder: Path) -> Iterator[None]:
    """A process that downloads meanwhile (to train a tokenizer holds Python's lock).

    It is ended when the block ends; whoever asks for the shards afterwards goes on from its bytes,
    and meets what it failed by.
    """
    asked = [name, "--shards", str(shards), "--out", str(folder)]
    command = [sys.executable, "-m", "nanogpt2.data.download", *asked]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """``python -m nanogpt2.data.download fineweb-edu --shards 8 --out data``."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    parser = argparse.ArgumentParser(prog="python -m nanogpt2.data.download", description=__doc__)
    parser.add_argument("name", choices=(*DATASETS, "core"), help="a data set, or CORE's tasks")
    parser.add_argument("--shards", type=int, default=8, help="for training; one more validates")
    parser.add_argument("--out", type=named_path, required=True, help="folder to fill")
    options = parser.parse_args()
    require_folder_place(options.out, "--out")
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)  # standard output holds the result alone
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(options.name, total=None)
        if options.name == "core":
            where = download_bundle(options.out, lambda n: progress.advance(task, n))
        else:
            where = download_dataset(
                options.name,
                options.out,
                options.shards,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
    print(where)


if __name__ == "__main__":
    run_command(main)
