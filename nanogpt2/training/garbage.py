"""No garbage collection in the middle of a step. Chapter: loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_by_hand() -> Iterator[None]:
    """What is there now is never looked at, and what comes only when ``gc.collect`` is called.

    With as many objects as a compiled model keeps, a collection takes up to half a second, on one
    rank after the other, while all others wait for it.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
