"""Sampling: which tokens can be drawn, how often, and from which stream of chance."""

from __future__ import annotations

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.inference.sampling import Sampler, Sampling, candidates, draw

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0, 3.0]])


def support(**settings):
    probabilities, tokens = candidates(LOGITS, Sampling(**settings))
    return {int(t): float(p) for p, t in zip(probabilities[0], tokens[0], strict=True) if p > 0}


def test_temperature_divides_logits():
    expected = (LOGITS[0].double() / 0.5).softmax(0)
    for token, probability in support(temperature=0.5).items():
        assert probability == pytest.approx(float(expected[token]), rel=1e-5)


def test_tiny_temperature_is_greedy_and_finite():
    for temperature in (1e-30, 1e-300):  # the second is 0 in float32
        assert support(temperature=temperature) == {4: 1.0}


@pytest.mark.parametrize("k", [1, 2, 5, 1000])
def test_top_k_keeps_the_k_likeliest(k):
    kept = support(top_k=k)
    assert set(kept) == set([4, 1, 2, 0, 3][:k])
    weights = LOGITS[0].double().exp()
    total = sum(float(weights[token]) for token in kept)
    for token, probability in kept.items():
        assert probability == pytest.approx(float(weights[token]) / total, rel=1e-5)


def test_top_p_keeps_the_smallest_set_that_holds_p():
    # probabilities in order: 4: .636, 1: .234, 2: .086, 0: .032, 3: .012
    assert set(support(top_p=0.6)) == {4}
    assert set(support(top_p=0.65)) == {4, 1}
    assert set(support(top_p=0.9)) == {4, 1, 2}
    assert set(support(top_p=1.0)) == {0, 1, 2, 3, 4}
    assert set(support(top_p=1e-9)) == {4}
    # top-p looks at what top-k left: .731 and .269 of the two likeliest
    assert set(support(top_k=2, top_p=0.72)) == {4}
    assert set(support(top_k=2, top_p=0.74)) == {4, 1}


def test_draws_follow_the_probabilities():
    chance = (torch.arange(100_000) + 0.5) / 100_000  # every quantile once
    wanted = torch.tensor([0.1, 0.0, 0.65, 0.0, 0.25, 0.0])
    drawn = draw(wanted.expand(len(chance), -1), chance[:, None])[:, 0]
    counts = torch.bincount(drawn, minlength=6) / len(chance)
    torch.testing.assert_close(counts, wanted, rtol=0, atol=2e-5)


def test_probability_zero_is_never_drawn_at_the_edges():
    ends = torch.tensor([[0.0], [1 - 2**-24]])  # the least and the most that torch.rand returns
    for seed in range(200):
        p = torch.rand(50, generator=torch.Generator().manual_seed(seed))
        p[0] = p[-1] = 0.0
        p = (p / p.sum()).expand(2, -1)
        assert (p.gather(1, draw(p, ends)) > 0).all()


def test_the_same_seed_gives_a_text_the_same_draws_in_any_company():
    flat = torch.zeros(3, 1000)

    def run(seed, schedule):
        sampler = Sampler(Sampling(seed=seed), 3)
        got = {0: [], 1: [], 2: []}
        for texts in schedule:
            for text, token in zip(texts, sampler(flat[: len(texts)], texts), strict=True):
                got[text].append(token)
        return got

    together = run(7, [[0, 1, 2]] * 6)
    assert run(7, [[0, 1, 2]] * 6) == together
    assert run(7, [[2], [0, 2]] * 3)[2] == together[2]
    assert run(7, [[0]] * 6)[0] == together[0]
    assert len({tuple(row) for row in together.values()}) == 3
    assert run(8, [[0, 1, 2]] * 6)[0] not in together.values()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_meaningless_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Sampling(**settings)
