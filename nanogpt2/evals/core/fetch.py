"""Where the evaluation bundle is, fetched from its public address where it is not here yet.

Chapter: CORE.
"""

from __future__ import annotations

from pathlib import Path

import pooch
from filelock import FileLock

from nanogpt2.data.download import Remote, fetch, unzip
from nanogpt2.errors import UserError
from nanogpt2.files import require_free_space

BUNDLE_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
BUNDLE_BYTES = 1_000_000_000
"""at most, unpacked; the archive has 162 MB"""
BUNDLE_SHA256 = "90a7c19e28ee7a52b4f6e1f87658deb9fde7f63deba2379045bdb1fe9ea5d200"


def find_bundle(folder: Path | None = None) -> Path:
    """``folder`` if one is given, else the user's cache, filled on first use.

    Raises UserError where the folder does not exist, or the bundle cannot be fetched.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"there is no bundle in {folder}; leave --bundle out to fetch it")
        return folder
    return fetch_bundle(Path(pooch.os_cache("nanogpt2")) / "eval_bundle")


def fetch_bundle(folder: Path, url: str = BUNDLE_URL, sha256: str = BUNDLE_SHA256) -> Path:
    """Where the tasks lie in ``folder``, fetched and unpacked if they are not there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            archive = folder.with_suffix(".zip")
            require_free_space(folder.parent, 2 * BUNDLE_BYTES, "the CORE bundle")
            unzip(fetch(Remote(url, archive, sha256=sha256)), folder, limit=BUNDLE_BYTES)
            archive.unlink()
    found = next(folder.rglob("core.yaml"), None)
    if found is None:
        raise UserError(f"{folder} holds no core.yaml; delete it to have the bundle fetched again")
    return found.parent
