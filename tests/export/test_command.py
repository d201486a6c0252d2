"""The command: kinds that exist, folders that are whole, mistakes in a sentence."""

from __future__ import annotations

from importlib.util import find_spec

from nanogpt2.export.__main__ import KINDS


def test_every_kind_has_its_module() -> None:
    for kind in KINDS:
        assert find_spec(f"nanogpt2.export.{kind}"), kind
