import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError


def test_windows_follow_the_pattern_and_the_last_layer_sees_everything():
    lefts = [left for left, _ in GPTConfig(n_layer=6, sequence_len=64).window_sizes()]
    assert lefts == [32, 32, 32, 64, 32, 64]


@given(st.integers(1, 5000), st.integers(1, 8), st.sampled_from([1, 64, 128]))
def test_short_window_is_the_ceiling_in_whole_tiles(T, divisor, multiple):
    short = GPTConfig(
        sequence_len=T, short_window_divisor=divisor, short_window_multiple=multiple
    ).short_window
    if multiple == 1:
        assert short == T // divisor
    else:
        assert short % multiple == 0
        assert (short - multiple) * divisor < T <= short * divisor


@given(st.integers(1, 40))
def test_value_embeddings_alternate_and_end_on_the_last_layer(layers):
    config = GPTConfig(n_layer=layers)
    has = [config.has_value_embedding(i) for i in range(layers)]
    assert has[-1] and all(a != b for a, b in zip(has, has[1:], strict=False))


def test_json_round_trip():
    config = GPTConfig(smear=True, x0_lambda_start=(0.2, 0.05))
    assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_layer": 0}, "n_layer is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"n_embd": 100}, "not divisible by n_head"),
        ({"n_kv_head": 4}, "not divisible by n_kv_head"),
        ({"n_embd": 6 * 3, "value_gate_channels": 2}, "even head size"),
        ({"window_pattern": "SXL"}, "letters"),
        ({"window_pattern": ""}, "letters"),
        ({"norm": "batch"}, "choose one of rms, layer"),
        ({"logit_softcap": -1.0}, "logit_softcap"),
        ({"value_gate_channels": 1000}, "exceeds n_embd"),
        ({"n_layer": 1, "backout": True}, "at least 2 layers"),
    ],
)
def test_contradictions_are_named(wrong, says):
    with pytest.raises(UserError, match=says):
        GPTConfig(**wrong)


def test_unknown_field_is_refused():
    with pytest.raises(UserError, match="n_layers"):
        GPTConfig.from_dict({"n_layers": 3})
