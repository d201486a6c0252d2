"""Very long runs of blanks: the same tokens as tiktoken's where it can, and never a panic."""

from __future__ import annotations

from functools import cache

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.data import long_runs
from nanogpt2.data.long_runs import LONG, cut_long_runs, has_long_run
from nanogpt2.data.tokenizer import SPLIT_PATTERN, Tokenizer
from nanogpt2.errors import UserError

MILLION = 1_100_000
PATTERNS = {
    "ours": SPLIT_PATTERN,
    "GPT-2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "GPT-2, possessive": (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
    ),
    "GPT-4": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "GPT-4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
MERGES = [b"  ", b"    ", b"\n\n", b"th", b"the", b" the", b"\t\t", b"12", b"--"]


@cache
def tokenizer(pattern: str) -> Tokenizer:
    ranks = {bytes([i]): i for i in range(256)} | {m: 256 + i for i, m in enumerate(MERGES)}
    special = {"<|bos|>": len(ranks)}
    return Tokenizer(
        tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    )


characters = st.one_of(st.sampled_from(" \t\n\r\u3000\x85\x1c'athe12.-/"), st.characters())
runs = st.tuples(st.sampled_from(" \t\n\r\u3000\xa0"), st.integers(1, 12)).map(
    lambda r: r[0] * r[1]
)
texts = st.lists(st.one_of(st.text(characters), runs)).map("".join)


@settings(max_examples=500)
@given(text=texts, pattern=st.sampled_from(list(PATTERNS.values())), long=st.integers(1, 8))
def test_the_parts_have_the_tokens_of_the_whole(text, pattern, long):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_runs, "LONG", long)
        encoding, ids = tokenizer(pattern).encoding, []
        for part, alone in cut_long_runs(text, pattern):
            assert not alone or part.isspace() and len(part) >= long
            ids += (encoding._encode_single_piece if alone else encoding.encode_ordinary)(part)
        whole = encoding.encode_ordinary(text)
        assert ids == whole == tokenizer(pattern).encode(text)


@given(st.lists(st.one_of(st.text(characters), runs)).map("".join), st.integers(1, 8))
def test_no_long_run_is_missed(text, long):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_runs, "LONG", long)
        runs_of_blanks = regex.findall(r"\s+", text)
        longest = max(map(len, runs_of_blanks), default=0)
        assert has_long_run(text) or longest < 2 * long - 1


def test_a_million_spaces_are_one_piece_and_the_last_goes_with_the_word():
    # n - 1 spaces by themselves: as many fours as there are, a pair and a single one
    fours, twos, ones = (MILLION - 1) // 4, 1, 1
    assert 4 * fours + 2 * twos + ones == MILLION - 1
    for name in ("ours", "GPT-2", "GPT-4o"):
        own = tokenizer(PATTERNS[name])
        start, end = own.encode("A table follows."), own.encode(" end")
        ids = own.encode("A table follows." + " " * MILLION + "end", prepend_bos=True)
        assert ids == [own.bos_id, *start, *[257] * fours, *[256] * twos, *[32] * ones, *end]


@pytest.mark.parametrize("name", ["ours", "GPT-2, possessive"])
@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\u3000", " \n"])
def test_no_run_of_blanks_is_too_long(name: str, blank: str, capfd: pytest.CaptureFixture[str]):
    own, run = tokenizer(PATTERNS[name]), blank * (MILLION // len(blank))
    for text in (f"a\n{run}b", f"{run}\n-{run}"):
        assert own.decode(own.encode_batch([text])[0]) == text
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("letter", ["a", "7", "-", "\u0301", "x "])
def test_other_long_runs_are_taken_as_they_are(letter: str):
    text = letter * (MILLION // len(letter))
    own = tokenizer(SPLIT_PATTERN)
    assert own.decode(own.encode(text)) == text


def test_a_tokenizer_is_learned_from_such_a_text():
    text = "the cat and the hat" + " " * MILLION + "end"
    learned = Tokenizer.train([text] * 2, 280)
    assert b" " * 64 in learned.encoding._mergeable_ranks
    assert learned.decode(learned.encode(text)) == text


def test_a_pattern_that_only_tiktoken_reads_is_told():
    own = tokenizer(r"\x{20}+(?!\S)|\S+|\s+")
    assert own.decode(own.encode("a   b")) == "a   b"
    with pytest.raises(UserError, match="cannot take it apart"):
        own.encode("a" + " " * (2 * LONG) + "b")
