"""Where the evaluation bundle is, fetched from its public address where it is not here yet.

Chapter: core.
"""

from __future__ import annotations

from pathlib import Path

import pooch

from nanogpt2.data.download import download_bundle
from nanogpt2.errors import UserError


def find_bundle(folder: Path | None = None) -> Path:
    """``folder`` if one is given, else the user's cache, filled on first use.

    Raises UserError where the folder does not exist, or the bundle cannot be fetched.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"there is no bundle in {folder}; leave --bundle out to fetch it")
        return folder
    return download_bundle(Path(pooch.os_cache("nanogpt2")) / "eval_bundle")
