"""Where the evaluation bundle is, fetched from its public address where it is not here yet.

Chapter: CORE.
"""

from __future__ import annotations

from pathlib import Path

import pooch

from nanogpt2.errors import UserError

BUNDLE_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"
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
    """Fetch and unpack the bundle into ``folder``, unless it is there."""
    raise NotImplementedError
