"""Batches from a list of strings."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.data.packing import pack_rows
from nanogpt2.data.texts import text_batches
from nanogpt2.data.tokenizer import SMALLEST, Tokenizer
from nanogpt2.errors import UserError

BYTES = Tokenizer.train(["a"], SMALLEST)
"""every byte a token"""
texts = st.lists(st.text(max_size=12), max_size=40)


@given(texts, st.integers(1, 5), st.integers(1, 12))
def test_every_row_is_a_packed_row_and_targets_are_one_token_on(
    texts: list[str], rows: int, sequence_len: int
) -> None:
    batches = list(text_batches(iter(texts), BYTES, rows, sequence_len))
    documents = [BYTES.encode(text, prepend_bos=True) for text in texts]
    whole = [torch.cat([x, y[:, -1:]], dim=1).tolist() for x, y in batches]
    assert sum(whole, []) == list(pack_rows([documents], sequence_len + 1))
    for inputs, targets in batches:
        assert torch.equal(inputs[:, 1:], targets[:, :-1]) and inputs.shape == targets.shape
    assert all(len(block) == rows for block in whole[:-1])


def test_again_goes_on_for_ever_with_the_same_texts() -> None:
    given = ["abc", "de", "f"]  # 4 + 3 + 2 tokens with their starts: three times make a row of 27
    (inputs, targets), *more = islice(text_batches(given, BYTES, 1, 26, again=True), 50)
    assert len(more) == 49
    row = [*inputs[0].tolist(), targets[0, -1].item()]
    assert set(BYTES.decode(row).split("<|bos|>")) <= {"", "abc", "de", "f"}
    assert not list(text_batches(given, BYTES, 1, 26)), "once is too little"


@pytest.mark.parametrize(
    ("texts", "says"), [("one string", "give a list of strings"), ([""], "no text to read again")]
)
def test_what_is_no_list_of_texts_is_told(texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        text_batches(texts, BYTES, 1, 8, again=True)
