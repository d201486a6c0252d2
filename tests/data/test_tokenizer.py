"""The tokenizer: nothing is lost, its files are text, and damage is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.data.tokenizer import BOS, SMALLEST, SPECIAL_TOKENS, Tokenizer, bytes_per_token
from nanogpt2.errors import UserError

TEXTS = [
    f"The {noun} of {n} is the {noun}'s number {n}." for noun in ("cat", "dog") for n in range(99)
]
TOKENIZER = Tokenizer.train(TEXTS, 300)


@given(st.text())
def test_decoding_gives_the_text_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.text())
def test_bytes_of_tokens_are_those_of_the_text(text):
    ids = TOKENIZER.encode(text, prepend_bos=True)
    assert ids[0] == TOKENIZER.bos_id
    assert TOKENIZER.token_bytes[ids].sum() == len(text.encode())


def test_special_tokens_are_the_last_ids_and_never_come_from_text():
    ids = [TOKENIZER.encoding._special_tokens[name] for name in SPECIAL_TOKENS]
    assert ids == list(range(300 - 9, 300))
    assert not TOKENIZER.token_bytes[ids].any() and TOKENIZER.token_bytes[: 300 - 9].all()
    assert TOKENIZER.bos_id not in TOKENIZER.encode(f"a {BOS} b")


def test_batches_are_the_single_calls():
    wanted = [TOKENIZER.encode(text, prepend_bos=True) for text in TEXTS]
    assert TOKENIZER.encode_batch(TEXTS, prepend_bos=True) == wanted


def test_merges_shorten_and_numbers_are_cut_in_pairs():
    assert bytes_per_token(TOKENIZER, TEXTS) > 1.5
    assert all(len(TOKENIZER.decode([i])) <= 2 for i in TOKENIZER.encode("1234567"))


def test_saved_as_text_and_loaded_the_same(tmp_path: Path):
    TOKENIZER.save(tmp_path / "t")
    for path in (tmp_path / "t").iterdir():
        path.read_text(encoding="utf-8")
    loaded = Tokenizer.load(tmp_path / "t")
    assert loaded.encode("a dog's 12") == TOKENIZER.encode("a dog's 12")
    assert loaded.token_bytes.tolist() == TOKENIZER.token_bytes.tolist()


def test_the_digest_is_of_the_content_and_not_of_its_format(tmp_path: Path):
    TOKENIZER.save(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7, sort_keys=True))
    lines = (tmp_path / "t" / "merges.tiktoken").read_text().splitlines()
    (tmp_path / "t" / "merges.tiktoken").write_text("\n".join(reversed(lines)))
    assert Tokenizer.load(tmp_path / "t").digest == TOKENIZER.digest
    assert re.fullmatch("[0-9a-f]{64}", TOKENIZER.digest)
    assert Tokenizer.train(TEXTS, 300).digest == TOKENIZER.digest


def changed(what: str) -> Tokenizer:
    """``TOKENIZER`` with one thing changed."""
    encoding = TOKENIZER.encoding
    ranks, special = dict(encoding._mergeable_ranks), dict(encoding._special_tokens)
    pattern = encoding._pat_str
    by_rank = sorted(ranks, key=lambda token: ranks[token])
    if what == "two merges swapped":
        a, b = by_rank[-2:]
        ranks[a], ranks[b] = ranks[b], ranks[a]
    elif what == "another merge":
        ranks[b"~~"] = ranks.pop(by_rank[-1])
    elif what == "one merge less":
        del ranks[by_rank[-1]]
    elif what == "pattern":
        pattern = pattern.replace("{1,2}", "{1,3}")
    elif what == "two specials swapped":
        a, b = SPECIAL_TOKENS[1:3]
        special[a], special[b] = special[b], special[a]
    elif what == "a special renamed":
        special["<|other|>"] = special.pop(SPECIAL_TOKENS[-1])
    elif what == "ids of specials":
        special = {name: index + 1 for name, index in special.items()}
    return Tokenizer(
        tiktoken.Encoding("t", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    )


def test_every_change_changes_the_digest():
    changes = ("two merges swapped", "another merge", "one merge less", "pattern")
    changes += ("two specials swapped", "a special renamed", "ids of specials")
    digests = {changed(what).digest for what in changes}
    assert len(digests) == len(changes) and TOKENIZER.digest not in digests
    assert changed("nothing").digest == TOKENIZER.digest


@pytest.mark.parametrize("file", ["merges.tiktoken", "tokenizer.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "binary"])
def test_damage_is_told_with_the_file(tmp_path: Path, file: str, how: str):
    TOKENIZER.save(tmp_path / "t")
    path = tmp_path / "t" / file
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"\xff\x00" * 50)
    with pytest.raises(UserError, match="train the tokenizer again"):
        Tokenizer.load(tmp_path / "t")


def test_tables_that_disagree_are_refused(tmp_path: Path):
    TOKENIZER.save(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    settings = json.loads(path.read_text())
    settings["token_bytes"][65] += 1
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match="do not agree"):
        Tokenizer.load(tmp_path / "t")


@pytest.mark.parametrize("pattern", ["", "(?=a)", r"\p{L}+", "(", r"(?:(?:\w|\w)*)*:"])
def test_a_pattern_that_loses_text_is_refused(tmp_path: Path, pattern: str):
    TOKENIZER.save(tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pattern": pattern}))
    with pytest.raises(UserError, match="pattern loses text|is damaged"):
        Tokenizer.load(tmp_path / "t")


def test_impossible_vocabularies():
    with pytest.raises(UserError, match=f"need {SMALLEST}"):
        Tokenizer.train(TEXTS, 100)
    with pytest.raises(UserError, match="too short for 5000"):
        Tokenizer.train(TEXTS, 5000)
