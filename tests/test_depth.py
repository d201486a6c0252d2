"""The facts of the records, recomputed."""

import math

import pytest

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.recipes import get_recipe


def test_run1_to_the_digit():
    run = dial(24, "run1")
    assert run.parameters == {
        "wte": 50_331_648,
        "value_embeddings": 603_979_776,
        "lm_head": 50_331_648,
        "matrices": 679_481_856,
        "scalars": 48,
        "total": 1_384_124_976,
    }
    assert (run.n_embd, run.n_head, run.n_layer) == (1536, 12, 24)
    assert run.flops_per_token == 4_945_112_064
    assert run.iterations == 16_704
    assert run.tokens == 8_757_706_752
    assert run.total_flops == 43_307_841_312_289_456_128


def test_depth_12():
    assert dial(12).parameters == {
        "wte": 25_165_824,
        "value_embeddings": 150_994_944,
        "lm_head": 25_165_824,
        "matrices": 84_935_808,
        "scalars": 24,
        "total": 286_262_424,
    }


@pytest.mark.parametrize(
    ("recipe", "depth", "steps", "N", "log2_batch", "decay"),
    [
        ("run1", 24, 16704, 729_813_504, 19, 0.05),
        ("run2", 26, 14889, 918_426_912, 19, 0.042604),
        ("run3", 26, 7226, 918_426_912, 20, 0.042604),
        ("run4", 24, 6612, 729_813_504, 20, 0.042670),
        ("run5", 24, 6055, 729_810_624, 20, 0.059738),
        ("run6", 24, 5568, 729_810_624, 20, 0.059738),
    ],
)
def test_the_six_records(recipe, depth, steps, N, log2_batch, decay):
    run = dial(None, recipe)
    assert (run.depth, run.iterations, run.scaling_parameters) == (depth, steps, N)
    assert run.batch_tokens == 2**log2_batch
    assert run.lr_scale == math.sqrt(2 ** (log2_batch - 19))
    assert round(run.weight_decay, 6) == decay


def test_short_windows_of_the_late_records():
    assert dial(24, "run5").model.short_window == 768
    assert dial(24, "run6").model.short_window == 512


def test_width_is_a_whole_number_of_heads():
    for depth in range(1, 40):
        run = dial(depth)
        assert run.n_embd % 128 == 0 and 64 * depth <= run.n_embd < 64 * depth + 128


def test_depth_below_one_is_refused():
    with pytest.raises(UserError, match="depth is 0"):
        dial(0)


def test_a_model_is_not_refused_for_another_of_the_reference_depth():
    """At depth 12 the same recipe would be narrower than the value gates' channels."""
    narrow = get_recipe("laptop", aspect=2, head_dim=8)
    assert dial(40, narrow).n_embd == 80
    with pytest.raises(UserError, match="exceeds n_embd 24"):
        dial(12, narrow)
