"""Waiting for something to be so: no test is judged by a clock, and a hang still ends."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 900.0
"""seconds after which a wait counts as a hang, on the slowest and busiest of machines"""


def wait_until(condition: Callable[[], object], alive: Callable[[], object] = lambda: True) -> None:
    """Return once ``condition()`` holds; an error if nothing ``alive()`` can bring it about."""
    given_up = time.monotonic() + PATIENCE
    while not condition():
        assert alive() or condition(), "what was waited for can no longer come"
        assert time.monotonic() < given_up, f"not so after {PATIENCE:.0f} s: it hangs"
        time.sleep(0.01)
