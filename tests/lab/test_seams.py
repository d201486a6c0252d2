"""Changes for a while end with the block, and timings count what they should."""

from types import SimpleNamespace

import pytest

from nanogpt2.lab.patching import patched
from nanogpt2.lab.timing import best_seconds, median_seconds


def test_what_was_patched_comes_back_even_after_an_error() -> None:
    owner = SimpleNamespace(value=1)
    with pytest.raises(ZeroDivisionError), patched(owner, "value", 2) as before:
        assert (owner.value, before) == (2, 1)
        raise ZeroDivisionError
    assert owner.value == 1


def test_the_first_call_does_not_count() -> None:
    calls: list[str] = []
    assert median_seconds(lambda: calls.append("a"), 3) >= 0
    assert calls == ["a"] * 4
    found = best_seconds([lambda: calls.append("b"), lambda: calls.append("c")], 2)
    assert calls[4:] == ["b", "c"] * 3 and len(found) == 2
