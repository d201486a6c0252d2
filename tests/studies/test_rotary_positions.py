"""What the chapter on rotary positions draws and measures."""

from __future__ import annotations

import math
import re

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.model.gpt import GPT
from nanogpt2.model.rope import rope_tables, rotate
from nanogpt2.studies import rotary_positions as rotary
from nanogpt2.studies.rotary_positions.changes import rotate_neighbours
from nanogpt2.studies.rotary_positions.pictures import likeness


def test_the_clock_shows_a_score_that_only_distance_changes() -> None:
    def score(key: int, distance: int) -> float:
        alt = rotary.phase_clock(key, distance)[1]
        return float(re.findall(r"score is (-?\d+\.\d+)", alt)[0])

    assert score(3, 7) == score(100, 7) == score(0, 7)
    assert score(0, 8) != score(0, 7)


@pytest.mark.parametrize("base", [100.0, 10_000.0])
def test_likeness_is_the_score_of_a_turned_vector_with_itself(base: float) -> None:
    cos, sin = rope_tables(64, 32, base, dtype=torch.float32)
    ones = torch.ones(1, 64, 1, 32)
    turned = rotate(ones, cos, sin)[0, :, 0]
    scores = turned @ turned[0] / 32
    torch.testing.assert_close(likeness(base, 32, 64), scores.double(), atol=1e-5, rtol=0)


def test_pairs_that_never_finish_a_turn() -> None:
    assert rotary.unfinished_turns(1.0, 128, 7) == 0  # every pair turns one radian a step
    assert rotary.unfinished_turns(1.0, 128, 6) == 64
    slow = sum(math.tau * 10_000 ** (i / 64) > 2048 for i in range(64))
    assert rotary.unfinished_turns(10_000.0) == slow


def test_bf16_tables_err_by_no_more_than_their_rounding() -> None:
    _, errors = rotary.score_errors(positions=512)
    worst = max(map(abs, errors["tables in bf16"]))
    assert 0 < worst < 4 * 2**-9  # four tables a product, each rounded to 8 bits


def test_the_neighbours_layout_is_the_halves_layout_with_channels_permuted() -> None:
    x = torch.randn(1, 5, 2, 8)
    tables = rope_tables(5, 8, dtype=torch.float32)
    neighbours = torch.arange(8).view(2, 4).T.flatten()  # 0 4 1 5 2 6 3 7
    ours = rotate(x, *tables)[..., neighbours]
    torch.testing.assert_close(rotate_neighbours(x[..., neighbours], *tables), ours)


def small_model() -> GPT:
    model = GPT(lab.small_config(depth=2, n_embd=64, n_head=1, n_kv_head=1))
    model.init_weights(seed=0)
    return model


def test_failures_change_the_model_only_within_their_block() -> None:
    model = small_model()
    with torch.no_grad():  # output projections start at zero, which would hide attention
        for block in model.transformer["h"]:
            block.attn.c_proj.weight.normal_(std=0.1)
        idx = torch.randint(0, 2048, (1, 16))
        right = model(idx)
        for failure in (rotary.wrong_pairs, rotary.keys_unturned, rotary.queries_late):
            with failure():
                assert not torch.allclose(model(idx), right, atol=1e-4), failure
            torch.testing.assert_close(model(idx), right)


def test_bits_per_byte_by_position_average_to_the_whole() -> None:
    data = lab.small_data()
    model = small_model()
    parts = rotary.bpb_by_position(model, data, 128, bucket=128, rows=4)
    assert parts[0] == pytest.approx(lab.bits_per_byte(model, data, rows=4), rel=1e-5)


@pytest.mark.parametrize(("far", "said"), [(1.8, 0), (2.0, 1), (2.2, 2)])
def test_verdict(far: float, said: int) -> None:
    assert rotary.verdict(2.0, far) == said


def test_the_opening_turns_its_hands_by_position() -> None:
    html = rotary.turning_row("a b c d e f").html
    assert "differ by 3 and by 0.3 radians" in html
    tip = f"{50 + 76 + 19 * math.sin(1):.1f} {164 - 19 * math.cos(1):.1f}"  # token 1, fast pair
    assert f"M126 164L{tip}" in html
