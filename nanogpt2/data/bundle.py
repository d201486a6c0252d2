"""Where CORE's tasks are, fetched from their public address where they are not here yet.

Chapter: core.
"""

from __future__ import annotations

from pathlib import Path

from nanogpt2.errors import UserError
from nanogpt2.files import cache_place, user_cache

FOLDER = "eval_bundle"
CURE = "give --bundle DIR"
"""how most commands are told of a folder"""


def find_bundle(folder: Path | None = None, cure: str = CURE) -> Path:
    """``folder`` if one is given, else the user's cache, filled on first use.

    Raises UserError, with the ``cure``, where the folder does not exist or the bundle cannot be
    fetched.
    """
    cure = f"{cure}, a folder that holds CORE's tasks"
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; {cure}, or none to fetch them")
        return folder
    if found := kept_bundle():
        return found
    from nanogpt2.data.download import download_bundle  # a look at the cache needs no transfer

    place = user_cache(cure) / FOLDER
    try:
        return download_bundle(place)
    except UserError as error:
        raise UserError(f"{error}; or {cure}") from None


def kept_bundle() -> Path | None:
    """The bundle in the user's cache, or None where it has to be fetched."""
    cache = cache_place()
    found = () if cache is None else (cache / FOLDER).rglob("core.yaml")
    return next((path.parent for path in found), None)
