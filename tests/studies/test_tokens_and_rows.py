"""What the chapter on tokens and rows measures and draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2 import reported
from nanogpt2.data import tokenizer as tokenizers
from nanogpt2.data.packing import pack_rows
from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.tokenizer import SPLIT_PATTERN, Tokenizer
from nanogpt2.depth import dial, flops_per_token
from nanogpt2.lab import recorded
from nanogpt2.studies import tokens_and_rows as tr
from nanogpt2.studies.tokens_and_rows import layouts
from nanogpt2.studies.tokens_and_rows.merging import (
    GROUP,
    SAMPLE,
    digit_tokenizer,
    sample_tokenizer,
    vocabulary_rows,
)

TEXTS = [
    f"In {year} the cat sat on mat {year * 37}, naïve as ever: 東京." for year in range(1900, 2020)
]
NUMBERS = [*TEXTS, *["707107107"] * 500]
CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus"


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS, 256 + 9 + 120)


@pytest.mark.parametrize("merges", [0, 1, 40, 120])
def test_the_first_merges_are_what_training_to_that_size_gives(
    trained: Tokenizer, merges: int
) -> None:
    small = tr.first_merges(trained, merges)
    alone = Tokenizer.train(TEXTS, 256 + 9 + merges)
    assert small.encoding._mergeable_ranks == alone.encoding._mergeable_ranks
    assert [small.encode(text) for text in TEXTS] == [alone.encode(text) for text in TEXTS]


def test_a_frame_says_how_many_tokens_are_left() -> None:
    counts = []
    for merges in tr.MERGES:
        html, alt = tr.merge_frame(merges)
        counts.append(html.count("<span"))
        assert f"{counts[-1]} tokens for {len(SAMPLE)} bytes" in alt
    assert counts[0] == len(SAMPLE)
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)
    assert sample_tokenizer().decode(sample_tokenizer().encode(SAMPLE)) == SAMPLE


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_digits_are_cut_into_groups_and_the_pattern_is_put_back(digits: int) -> None:
    made = digit_tokenizer(NUMBERS, 256 + 9 + 25, digits)
    pieces = [made.decode([one]) for one in made.encode("7071071071")]
    assert GROUP in SPLIT_PATTERN and max(map(len, pieces)) <= digits
    assert tokenizers.SPLIT_PATTERN == SPLIT_PATTERN
    assert any(len(piece) == digits for piece in pieces)


def test_digit_rows_stand_beside_what_was_reported() -> None:
    rows = tr.digit_rows(NUMBERS, TEXTS[:9], 256 + 9 + 25)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[4] for row in rows] == [0.969, 0.965, 0.972]
    assert rows[0][1] == 0 < rows[1][1]
    assert rows[0][2] == "1|9|8|4"


def test_a_vocabulary_pays_with_its_head_and_earns_by_its_rate(trained: Tokenizer) -> None:
    sizes = [265, 300, 385]
    rows = vocabulary_rows(trained, TEXTS, sizes, 24)
    rates = [row[1] for row in rows]
    assert rates == sorted(rates) and rates[0] == pytest.approx(1)
    for size, (_, rate, head, cost) in zip(sizes, rows, strict=True):
        width, padded = dial(24, "run1").n_embd, -(-size // 64) * 64
        assert head == pytest.approx(6 * width * padded / (cost * rate))
    (row,) = vocabulary_rows(trained, TEXTS, [385], 24)
    model = dial(24, "run1").model
    assert row[3] * row[1] < flops_per_token(model)


def test_torn_tokens_are_those_that_decoding_counts_wrongly(trained: Tokenizer) -> None:
    wrong = tr.bytes_by_decoding(trained) != trained.token_bytes
    torn = tr.torn(trained)
    assert set(np.flatnonzero(wrong)) <= set(torn)
    assert {i for i in range(128, 256)} <= set(torn)
    for token in set(range(trained.vocab_size - 9)) - set(torn):
        trained.encoding.decode_single_token_bytes(token).decode("utf-8")
    text = "naïve 東京 🙂"
    ids = trained.encode(text)
    assert trained.token_bytes[ids].sum() == len(text.encode())
    assert tr.bytes_by_decoding(trained)[ids].sum() > len(text.encode())


def test_words_are_the_pieces_of_a_pattern() -> None:
    assert tr.words_of(SPLIT_PATTERN, "a cat's 123") == "a| cat|'s| |12|3"


lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=80)


@settings(deadline=None)
@given(lengths_of, st.integers(1, 20), st.integers(1, 12), st.integers(1, 9))
def test_best_fit_by_lengths_is_the_packages_best_fit(
    lengths: list[int], capacity: int, buffer: int, refill: int
) -> None:
    documents = [[number] * length for number, length in enumerate(lengths)]
    batches = [documents[i : i + refill] for i in range(0, len(documents), refill)]
    rows = [
        [piece.document for piece in row for _ in range(piece.size)]
        for row in tr.best_fit(lengths, capacity, buffer, refill)
    ]
    assert rows == list(pack_rows(batches, capacity, buffer))


@settings(deadline=None)
@given(lengths_of, st.integers(2, 20))
def test_every_way_lays_full_rows_of_pieces_in_their_places(
    lengths: list[int], capacity: int
) -> None:
    for way in tr.WAYS.values():
        seen: dict[int, int] = {}
        for row in way(lengths, capacity):
            assert sum(piece.size for piece in row) == capacity
            for document, start, count in row:
                if document != layouts.PADDING:
                    assert start == seen.get(document, 0) and count > 0
                    seen[document] = start + count
                    assert seen[document] <= lengths[document]


def test_what_each_way_loses_by_hand() -> None:
    lengths = [6, 6, 4]
    stream, greedy, padded = (
        layouts.shares(tr.WAYS[name](lengths, 8), lengths)
        for name in ("one stream", "greedy", "padding")
    )
    assert stream == (0, pytest.approx(4 / 16), 0)  # the second document's rest
    assert greedy == (pytest.approx(4 / 12), 0, 0)  # and the last row is not full
    assert padded.cropped == 0 and padded.padding == pytest.approx(2 / 8)
    fits = layouts.shares(tr.best_fit([4, 6, 4, 10], 8), [4, 6, 4, 10])
    assert fits.cropped > 0 and fits.beheaded == 0


@pytest.mark.parametrize("mean", [700, 1000, 1200])
def test_simulated_lengths_have_the_reported_floor_and_foretell_greedy(mean: float) -> None:
    lengths = tr.web_lengths(24_000, mean)
    assert layouts.floor(lengths) == pytest.approx(reported.CROPPED_FLOOR, abs=0.01)
    assert np.mean(lengths) == pytest.approx(mean, rel=0.02)
    greedy = layouts.shares(tr.WAYS["greedy"](lengths, layouts.ROW), lengths)
    assert greedy.cropped == pytest.approx(reported.CROPPED_GREEDY, abs=0.015)


def test_the_buffer_silts_up_and_refills_of_one_make_best_fit_greedy() -> None:
    lengths = tr.web_lengths(12_000)
    many, one = (layouts.filling(lengths, layouts.ROW, 100, refill) for refill in (128, 1))
    assert many.long[0] < 0.3 and one.long[-1] > 0.9
    assert layouts.floor(lengths) - 0.01 < many.cropped < one.cropped
    assert one.cropped == pytest.approx(reported.CROPPED_GREEDY, abs=0.02)


def test_kept_by_place_counts_what_stands_in_rows() -> None:
    lengths = [4, 4, 6]
    rows = list(tr.WAYS["greedy"](lengths, 6))
    # 4 + 2 of the second; 6 of the third
    assert layouts.kept_by_place(rows, lengths, [0, 2, 4, 6]) == [1.0, pytest.approx(4 / 6), 1.0]


def test_frames_say_what_they_draw() -> None:
    assert "0.0% cropped" in tr.rows_frame("one stream", 2048)[1]
    alt = tr.rows_frame("padding", 512)[1]
    assert "rows of 512 tokens" in alt and "0.0% beheaded" in alt
    assert "longer than a row" in tr.buffer_frame(100, 128)[1]
    assert "beyond a row none" in tr.place_figure().html
    assert "aria-label" in tr.opening("why").html


def test_the_records_stay_below_one_epoch() -> None:
    rows = tr.data_rows()
    assert [row[0] for row in rows] == list(reported.LEADERBOARD)
    assert rows[0][2] == "8,757,706,752" and rows[0][3] == "12.00"
    assert all(float(row[5]) < 0.2 for row in rows)
    assert tr.text_rows()[0][2] == "+0.0000" and tr.text_rows()[2][2] == "-0.0361"


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")
def test_the_record_of_the_corpus_is_of_its_documents() -> None:
    kept = recorded("tokens_and_rows-corpus").results
    shard = find_shards(CORPUS).train[0]
    texts = [text for text, _ in zip(read_documents(shard), range(400), strict=False)]
    made = Tokenizer.train(texts, 8192)
    rate = sum(len(text.encode()) for text in texts) / sum(len(made.encode(text)) for text in texts)
    by_size = {row[0]: row[1] for row in kept["vocabulary"]}
    assert rate == pytest.approx(by_size["8,192"], rel=0.06)
