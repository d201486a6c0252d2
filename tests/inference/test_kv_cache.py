"""The cache against the model without one: the same logits at every position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.errors import UserError
from nanogpt2.inference.kv_cache import KVCache, cache_bytes, newest_attention, ring_sizes
from nanogpt2.recipes import RECIPES

NAMES = ["gpt2", *RECIPES]
LENGTH = 60  # two and a half contexts: the rings of all layers wrap


def tokens(rows: int, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(61, (rows, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def fed(model, idx, pieces, cache=None):
    cache = cache or KVCache(model.config, idx.size(0), idx.size(1))
    return torch.cat([model(piece, cache=cache) for piece in idx.split(pieces, dim=1)], dim=1)


def schedules(length):
    return {
        "one by one": [1] * length,
        "prefill, then decode": [length - 9] + [1] * 9,
        "pieces": [7] * (length // 7) + [length % 7],
        "mixed": [2, 1, 9, 1, 1, 3, length - 18, 1],
    }


@pytest.mark.parametrize("name", NAMES)
def test_cached_logits_equal_uncached_ones(tiny_model, name):
    model = tiny_model(name)
    idx = tokens(2, 24 if name == "gpt2" else LENGTH)  # learned positions end at the context
    with torch.no_grad():
        plain = model(idx)
    assert plain.std() > 0.1
    for schedule, pieces in schedules(idx.size(1)).items():
        torch.testing.assert_close(
            fed(model, idx, pieces), plain, rtol=0, atol=1e-5, msg=lambda m, s=schedule: f"{s}: {m}"
        )


@pytest.mark.parametrize("n_kv_head", [1, 2])
@pytest.mark.parametrize("name", ["run1", "run6"])
def test_grouped_queries(tiny_model, name, n_kv_head):
    model, idx = tiny_model(name, n_kv_head=n_kv_head), tokens(2)
    with torch.no_grad():
        plain = model(idx)
    for pieces in schedules(LENGTH).values():
        torch.testing.assert_close(fed(model, idx, pieces), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.35)])
def test_low_precision_agrees_to_its_rounding(tiny_model, dtype, error):
    model, idx = tiny_model("run6", dtype), tokens(2)
    with torch.no_grad():
        plain = model(idx)
        exact = tiny_model("run6")(idx)
    cached = fed(model, idx, [31] + [1] * 29)
    assert (cached - plain).abs().max() < error  # logits lie within +-15
    own = (plain - exact).abs().mean()
    assert (cached - exact).abs().mean() < 1.2 * own + 1e-6


@pytest.mark.parametrize("name", ["run1", "run5", "run6"])
def test_smear_and_windows_matter_in_these_models(tiny_model, name):
    """The tests above would not notice a lost past if the models did not use it."""
    model, idx = tiny_model(name), tokens(1)
    other = idx.clone()
    other[0, LENGTH - 5] = (other[0, LENGTH - 5] + 1) % 61
    with torch.no_grad():
        change = (model(idx) - model(other)).abs().amax(dim=-1)[0]
    assert (change[: LENGTH - 5] == 0).all()
    assert (change[LENGTH - 5 :] > 1e-3).all()


@settings(max_examples=40)
@given(data=st.data())
def test_rows_of_different_lengths(tiny_model, data):
    """Rows read alone in any pieces, then put together, give every row's own logits."""
    model = tiny_model(data.draw(st.sampled_from(["run1", "run6"])), n_kv_head=2)
    rows, got = 3, []
    idx, cache = tokens(rows), KVCache(model.config, rows, LENGTH)
    for b in range(rows):
        pieces = data.draw(st.lists(st.sampled_from([1, 1, 2, 5, 11, 19]), min_size=1, max_size=3))
        alone = KVCache(model.config, 1, data.draw(st.sampled_from([sum(pieces), LENGTH])))
        got.append([fed(model, idx[b : b + 1, : sum(pieces)], pieces, alone)[0]])
        cache.put([b], alone)
    for _ in range(data.draw(st.integers(0, LENGTH - max(cache.lengths)))):
        newest = idx[torch.arange(rows), torch.tensor(cache.lengths)]
        with torch.no_grad():
            logits = model(newest[:, None], cache=cache)
        for b in range(rows):
            got[b].append(logits[b])
    with torch.no_grad():
        plain = model(idx)
    for b in range(rows):
        row = torch.cat(got[b])
        torch.testing.assert_close(row, plain[b, : len(row)], rtol=0, atol=1e-5)
    assert cache.lengths == [sum(len(part) for part in row) for row in got]


def test_select_continues_one_prefix_in_several_ways(tiny_model):
    model, idx = tiny_model("run6"), tokens(3)
    idx[1:, :30] = idx[0, :30]
    cache = KVCache(model.config, 1, LENGTH)
    fed(model, idx[:1, :30], [30], cache)
    rest = fed(model, idx[:, 30:], [4] + [1] * 26, cache.select([0, 0, 0]))
    with torch.no_grad():
        torch.testing.assert_close(rest, model(idx)[:, 30:], rtol=0, atol=1e-5)
    assert cache.lengths == [30]  # the prefix itself is as it was


def test_short_layers_keep_only_what_they_see(tiny_model):
    model = tiny_model("run1")
    windows = [left for left, _ in model.config.window_sizes()]
    assert windows == [12, 12, 12, 24]
    assert ring_sizes(model.config, 1000) == [13, 13, 13, 25]
    assert ring_sizes(model.config, 20) == [13, 13, 13, 20]
    cache = KVCache(model.config, 2, LENGTH)
    fed(model, tokens(2), [LENGTH], cache)
    expected = 2 * 2 * (13 + 13 + 13 + 25) * 4 * 8 * 8  # k and v, rows, slots, K, D, float64
    assert cache.nbytes == expected == cache_bytes(model.config, 2, LENGTH, bytes_per_value=8)


def test_too_long_a_text_is_refused(tiny_model):
    model = tiny_model("run1")
    cache = KVCache(model.config, 2, 10)
    fed(model, tokens(2, 8), [8], cache)
    with pytest.raises(UserError, match="room for 10 tokens and the text has 11"):
        model(tokens(2, 3), cache=cache)
    model(tokens(2, 2), cache=cache)
    assert cache.lengths == [10, 10]


def test_rows_of_different_lengths_are_read_apart(tiny_model):
    model = tiny_model("run1")
    cache = KVCache(model.config, 2, 10)
    for row, length in enumerate((2, 3)):
        alone = KVCache(model.config, 1, length)
        fed(model, tokens(1, length), [length], alone)
        cache.put([row], alone)
    with pytest.raises(ValueError, match="rows of 2 to 3 tokens go on one token at a time"):
        model(tokens(2, 2), cache=cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [None, [1, 9, 14]])
def test_the_newest_query_against_float64(dtype, lengths):
    generator = torch.Generator().manual_seed(3)
    B, S, H, K, D = 3, 14, 6, 2, 8
    q, k, v = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in [(B, 1, H, D), (B, K, S, D), (B, K, S, D)]
    )
    out = newest_attention(q, k, v, None if lengths is None else torch.tensor(lengths))
    for b in range(B):
        n = S if lengths is None else lengths[b]
        for h in range(H):
            keys, values = (x[b, h // (H // K), :n].double() for x in (k, v))
            weights = (keys @ q[b, 0, h].double() / D**0.5).softmax(0)
            error = (out[b, 0, h].double() - weights @ values).abs().max()
            assert error < (1e-5 if dtype == torch.float32 else 0.02)
