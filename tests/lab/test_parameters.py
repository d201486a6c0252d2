"""The parameters of a chapter: what a reader may set them to."""

from __future__ import annotations

from typing import Any

import pytest

from nanogpt2.errors import UserError
from nanogpt2.lab import SCALES, check_parameters


@pytest.mark.parametrize("scale", SCALES)
def test_the_books_own_values_pass(scale: str) -> None:
    check_parameters(12, scale, 0)
    check_parameters(1, scale, 2**32 - 1)


@pytest.mark.parametrize(
    ("depth", "scale", "seed", "sentence"),
    [
        (0, "ci", 0, "DEPTH is 0; give a whole number of layers from 1 to 100"),
        (12.0, "ci", 0, "DEPTH is 12.0; give a whole number of layers"),
        ("12", "ci", 0, "DEPTH is '12'; give a whole number of layers"),
        (True, "ci", 0, "DEPTH is True; give a whole number of layers"),
        (10**9, "ci", 0, "DEPTH is 1000000000; give a whole number of layers"),
        (12, "Laptop", 0, "SCALE is 'Laptop'; choose one of 'ci', 'laptop', 'h100'"),
        (12, None, 0, "SCALE is None; choose one of"),
        (12, ["ci"], 0, "SCALE is .'ci'.; choose one of"),
        (12, "ci", -1, "SEED is -1; give a whole number from 0 to 4294967295"),
        (12, "ci", 2**32, "SEED is 4294967296; give a whole number"),
        (12, "ci", 0.5, "SEED is 0.5; give a whole number"),
    ],
)
def test_others_are_one_sentence(depth: Any, scale: Any, seed: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        check_parameters(depth, scale, seed)
    assert "\n" not in str(caught.value)
