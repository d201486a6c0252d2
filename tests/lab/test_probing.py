"""Looking into a model leaves it as it was; what leaks is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nanogpt2.lab import small_config, small_data
from nanogpt2.lab.probing import attending, hooked, looks_ahead, watched
from nanogpt2.model.gpt import GPT


def test_a_hook_sees_input_and_output_may_replace_it_and_ends_with_its_block() -> None:
    module, x, seen = nn.Linear(3, 2), torch.randn(4, 3), list[Tensor]()

    def keep(_module: Any, inside: Tensor, outside: Tensor) -> None:
        seen.extend((inside, outside))

    with hooked([(module, keep)]):
        y = module(x)
    assert torch.equal(seen[0], x) and torch.equal(seen[1], y)
    with pytest.raises(ZeroDivisionError), hooked([(module, lambda _m, _x, out: 0 * out)]):
        assert not module(x).any()
        raise ZeroDivisionError
    assert torch.equal(module(x), y) and len(seen) == 2


def test_each_module_has_the_hook_of_its_own() -> None:
    layers, calls = [nn.Identity() for _ in range(3)], list[int]()
    with hooked((layer, lambda *_, i=i: calls.append(i)) for i, layer in enumerate(layers)):
        nn.Sequential(*layers)(torch.zeros(1))
    assert calls == [0, 1, 2]


def test_what_went_in_and_came_out_is_told_by_key() -> None:
    one, two, x = nn.Linear(3, 2), nn.Linear(2, 1), torch.randn(4, 3)
    with watched({"one": one, 2: two}) as seen:
        y = two(one(x))
    assert list(seen) == ["one", 2] and torch.equal(seen["one"][0], x)
    assert torch.equal(seen["one"][1], seen[2][0]) and torch.equal(seen[2][1], y)
    two(one(x + 1))
    assert torch.equal(seen["one"][0], x)


def test_a_model_looks_ahead_where_attention_does() -> None:
    model, data = GPT(small_config(1, n_embd=32, n_head=1, n_kv_head=1)), small_data()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    assert looks_ahead(model, data) == 0
    with attending(lambda _, q, k, v, window: v.mean(1, keepdim=True).expand_as(q)):
        assert looks_ahead(model, data) > 1e-3
    assert looks_ahead(model, data) == 0
