"""Generation against the plain way: the whole text through the model for every token."""

from __future__ import annotations

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.inference import generation
from nanogpt2.inference.generation import generate, generate_steps

PROMPTS = [[5], [7, 8, 9, 10, 11, 12, 13, 14], [3] * 31, [1, 2]]


@torch.no_grad()
def greedy(model, prompt, n, stops=()):
    text = list(prompt)
    for _ in range(n):
        token = int(model(torch.tensor([text]))[0, -1].argmax())
        if token in stops:
            break
        text.append(token)
    return text[len(prompt) :]


@pytest.mark.parametrize("chunk", [1, 5, 1024])
@pytest.mark.parametrize("name", ["run1", "run4", "run6"])
def test_greedy_batches_equal_one_prompt_at_a_time(tiny_model, name, chunk, monkeypatch):
    monkeypatch.setattr(generation, "PREFILL_TOKENS", chunk)
    model = tiny_model(name, n_kv_head=2)
    expected = [greedy(model, prompt, 40) for prompt in PROMPTS]
    assert generate(model, PROMPTS, 40, temperature=0) == expected


def test_stop_tokens_end_a_text_and_are_left_out(tiny_model):
    model = tiny_model("run6")
    free = [greedy(model, prompt, 30) for prompt in PROMPTS]
    stops = {free[0][3], free[1][12]}
    expected = [greedy(model, prompt, 30, stops) for prompt in PROMPTS]
    assert len({len(text) for text in expected}) > 1  # they end at different steps
    assert generate(model, PROMPTS, 30, temperature=0, stop_tokens=stops) == expected


def test_steps_are_the_texts_as_they_grow(tiny_model):
    model = tiny_model("run1")
    settings = {"max_new_tokens": 12, "top_k": 20, "seed": 3, "stop_tokens": range(8)}
    texts = generate(model, PROMPTS, **settings)
    steps = list(generate_steps(model, PROMPTS, **settings))
    assert len(steps) == max(map(len, texts)) > min(map(len, texts))
    for place, text in enumerate(texts):
        column = [step[place] for step in steps]
        assert column == text + [None] * (len(steps) - len(text))


def test_sampled_text_depends_on_seed_and_place_not_on_company(tiny_model):
    model = tiny_model("run6")
    settings = {"max_new_tokens": 20, "temperature": 1.3, "top_p": 0.95, "seed": 11}
    texts = generate(model, PROMPTS, **settings)
    assert generate(model, PROMPTS, **settings) == texts
    assert generate(model, PROMPTS[:1], **settings) == texts[:1]
    ended = generate(model, PROMPTS, **settings, stop_tokens=texts[0][:1])
    assert ended[0] == [] and texts[0][0] not in texts[2][:5]
    assert ended[2][:5] == texts[2][:5]
    assert generate(model, PROMPTS, **{**settings, "seed": 12}) != texts


@pytest.mark.parametrize("name", ["gpt2", "run1"])
def test_a_text_ends_where_the_positions_end(tiny_model, name):
    model = tiny_model(name)
    room = model.max_positions
    assert room == (24 if name == "gpt2" else 8192)
    if name == "run1":  # a table of 30 positions is as good and quicker
        model = tiny_model("run1", n_head=2, n_kv_head=2)
        model.cos, model.sin, room = model.cos[:30], model.sin[:30], 30
    prompts = [[4] * (room - 3), [6] * room, [2] * (room - 10)]
    texts = generate(model, prompts, 8, temperature=0)
    # A prediction made at the last position needs no position of its own.
    assert [len(text) for text in texts] == [4, 1, 8]
    assert texts[0][0] == greedy(model, prompts[0], 1)[0]


def test_a_model_in_training_is_left_in_training(tiny_model):
    model = tiny_model("run1").train()
    steps = generate_steps(model, [[1]], 5)
    next(steps)
    assert not model.training
    steps.close()
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([], {}, "there is no prompt"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [61]], {}, "prompt 1 holds a token outside the model's vocabulary of 61"),
        ([[-1]], {}, "prompt 0 holds a token outside"),
        ([[1] * 8193], {}, "prompt 0 has 8193 tokens and the model has 8192 positions"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ([[1]], {"temperature": -1.0}, "temperature is -1.0"),
        ([[1]], {"top_k": 0}, "top_k is 0"),
    ],
)
def test_bad_input_is_refused(tiny_model, prompts, settings, message):
    with pytest.raises(UserError, match=message):
        generate(tiny_model("run1"), prompts, **settings)
