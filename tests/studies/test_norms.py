"""The chapter's measurements against mathematics, and its failures against the package."""

from __future__ import annotations

import math

import pytest
import torch

from nanogpt2.lab import small_config, small_data
from nanogpt2.lab.variants import DyT, dynamic_tanh
from nanogpt2.model import attention as attention_room
from nanogpt2.model import gpt, norm
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import rms_norm
from nanogpt2.studies import norms
from nanogpt2.studies.norms.measures import silence


@pytest.fixture()
def stirred() -> GPT:
    """A small model whose every parameter is at work, gates and gains too."""
    model = GPT(small_config(2, norm_learnable=True))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


def test_folding_keeps_the_function_and_frees_all_gains_but_one(stirred: GPT) -> None:
    tokens = small_data().validation(2, 128)[0]
    with torch.no_grad():
        before = stirred(tokens)
        after = norms.fold_gains(stirred)(tokens)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    left = {row[0] for row in norms.learned_gains(stirred) if row[1:] != [1.0, 1.0, 1.0]}
    assert left == {"`embedding_norm`"}


def test_scores_are_bounded_with_qk_norm_and_quadratic_without() -> None:
    rows = norms.score_growth(2, (1, 2, 4))
    assert [row[1] / rows[0][1] for row in rows] == pytest.approx([1, 4, 16], rel=1e-4)
    assert all(row[2] == pytest.approx(rows[0][2], rel=1e-3) for row in rows)
    assert rows[0][2] < math.sqrt(32)


def test_probe_leaves_the_model_as_it_was(stirred: GPT) -> None:
    before = attention_room.attention
    found = norms.largest_score(stirred, 3)["largest score"]
    assert attention_room.attention is before
    assert 0 < found <= math.sqrt(32) + 1e-3
    assert 0 < norms.sharpest_weight(stirred) <= 1


def test_incoming_names_all_five_kinds(stirred: GPT) -> None:
    rows = norms.incoming(stirred)
    assert [row[0][0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert all(low <= mean <= high for _, low, mean, high in rows)
    assert attention_room.rms_norm is rms_norm
    assert 0 <= norms.mean_share(stirred) <= 1


def test_silence_of_known_values() -> None:
    hidden = torch.cat((torch.full((1, 1, 20), -1.0), torch.ones(1, 1, 20)), dim=-1)
    zeros, dead, top = silence(hidden)
    assert (zeros, dead, top) == (0.5, 20, pytest.approx(0.1))


def test_kernel_is_right_in_16_bits_and_steps_are_not() -> None:
    found = {row[0]: row[1:] for row in norms.rms_after((32, 1536))}
    for dtype in ("bf16", "fp16"):
        assert found[f"kernel, {dtype} in and out"] == pytest.approx([1, 1], abs=2e-3)
        assert abs(found[f"every step in {dtype}"][1] - 1) > 0.1


def test_wrong_axis_leaks_and_is_undone() -> None:
    data, right = small_data(), norm.rms_norm
    model = GPT(small_config(1))
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
    assert norms.looks_ahead(model, data) == 0
    with pytest.raises(ZeroDivisionError), norms.over_time():
        assert norms.looks_ahead(model, data) > 0
        raise ZeroDivisionError
    assert norm.rms_norm is right
    whole, one_by_one = norms.row_losses(model, data, rows=2)
    assert whole == pytest.approx(one_by_one, rel=1e-4)


def test_dynamic_tanh_stands_where_norms_stood() -> None:
    right = gpt.Norm
    with dynamic_tanh():
        model = GPT(small_config(2))
    assert gpt.Norm is right
    assert sum(isinstance(m, DyT) for m in model.modules()) == 6
    x = torch.randn(3, 64)
    torch.testing.assert_close(DyT(small_config(2))(x), torch.tanh(0.5 * x))


def test_verdict_reads_the_seeds() -> None:
    assert norms.verdict([1.0, 1.1], [1.05, 1.2]) == 1
    assert norms.verdict([1.0, 1.1], [1.2, 1.3]) == 0
    assert norms.verdict([1.2, 1.3], [1.0, 1.1]) == 2


@pytest.mark.parametrize("plus", [0.0, 2.0])
def test_frames_say_what_they_show(plus: float) -> None:
    picture, alt = norms.norm_frame(10.0, plus)
    assert picture.startswith("<svg") and "After LayerNorm: 1." in alt
    same = norms.norm_frame(0.1, plus)[1]
    assert same.split("After")[1:] == alt.split("After")[1:]


def test_attention_frame_collapses_without_the_norm_only() -> None:
    slopes = {
        on: float(norms.attention_frame(8.0, on)[1].rstrip(".").split()[-1]) for on in ("on", "off")
    }
    assert slopes["off"] < 0.01 < slopes["on"]
    assert "norm 3 on queries and keys" in norms.block_picture().text


def test_the_opening_gives_both_tokens_one_vector() -> None:
    told = norms.two_lengths().text
    assert told.count("becomes 0.33, 1.67, -0.33, 1.00") == 2
    assert "mean square 30 " in told and "mean square 0.3 " in told
