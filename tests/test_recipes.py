import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.errors import UserError
from nanogpt2.recipes import RECIPES, AdamWGroup, Recipe, get_recipe
from nanogpt2.settings import override


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name):
    recipe = get_recipe(name)
    back = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert back == recipe and back.record == recipe.record


def test_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match="run1, run2"):
        get_recipe("run7")


def test_settings_reach_recipe_model_and_groups():
    changed = override(
        get_recipe("run1"),
        {
            "ratio": "3",
            "rope_base": "500",
            "smear": "true",
            "muon.lr": "0.1",
            "wte.betas": "0.9,0.99",
            "batch_tokens": "auto",
            "iterations": "7",
            "model.positions": "learned",
        },
    )
    assert (changed.ratio, changed.batch_tokens, changed.iterations) == (3.0, "auto", 7)
    assert (changed.model.rope_base, changed.model.smear) == (500.0, True)
    assert (changed.muon.lr, changed.wte.betas) == (0.1, (0.9, 0.99))
    assert changed.model.positions == "learned"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ratoi", "3", "did you mean ratio"),
        ("ratio", "many", "must be a number"),
        ("ratio", "-1", "must be positive"),
        ("smear", "perhaps", "true or false"),
        ("n_embd", "64", "follows from the depth"),
        ("muon.speed", "1", "muon has lr"),
        ("positions", "sinus", "choose one of rope, learned"),
        ("wte.betas", "0.9", "two numbers"),
        ("ratio.x", "1", "plain value"),
        ("muon", "1", "muon has lr"),
        ("name", "mine", "name names the recipe"),
        ("muon.divisor", "0", "muon.divisor is 0; it must be at least 0.1"),
        ("warmdown_ratio", "1.5", "warmdown_ratio is 1.5; it must be at most 1"),
        ("depth", "1e9", "depth is '1e9'; it must be a whole number"),
        ("depth", "70000", "depth is 70000; it must be less than 65536"),
        ("batch_tokens", "many", "batch_tokens is 'many'; it must be a whole number or auto"),
    ],
)
def test_wrong_settings_are_explained(name, value, says):
    with pytest.raises(UserError, match=says):
        override(get_recipe("run1"), {name: value})


def test_a_recipe_is_taken_with_fields_changed():
    small = get_recipe("laptop", depth=2, vocab_size=300, **{"wte.betas": (0.7, 0.9)})
    assert (small.depth, small.model.vocab_size, small.wte.betas) == (2, 300, (0.7, 0.9))
    assert get_recipe("laptop") == RECIPES["laptop"], "the recipe itself is as it was"
    assert get_recipe(small, ratio=1e-3, smear=True, iterations=None).ratio == 1e-3
    with pytest.raises(UserError, match="did you mean vocab_size"):
        get_recipe("laptop", vocabsize=300)


# What text means

SPELLED = {
    "depth": {"4": 4, " 4 ": 4, "+4": 4, "0123": 123, "1_000": 1000},
    "ratio": {"4": 4.0, "1e-3": 0.001, ".5": 0.5, "5.": 5.0, "1_000.5": 1000.5, "0123": 123.0},
    "smear": dict.fromkeys(("true", "yes", "on", "1", "TRUE", "Yes", " on "), True)
    | dict.fromkeys(("false", "no", "off", "0", "False", "OFF"), False),
    "wte.betas": dict.fromkeys(
        ("0.5,0.25", "(0.5, 0.25)", "[0.5,0.25]", " .5 , 25e-2 "), (0.5, 0.25)
    ),
    "batch_tokens": {"auto": "auto", "4096": 4096},
    "iterations": {"none": None, "None": None, "7": 7},
    "steps": {"7": 7},
    "muon.momentum_end": {"none": None, "0.5": 0.5},
    "window_pattern": {"SSL": "SSL"},
    "model.value_embeddings": {"off": False},
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [(name, text, value) for name, texts in SPELLED.items() for text, value in texts.items()],
)
def test_text_says_what_it_says(name, text, value):
    changed = override(get_recipe("run1"), {name: text}).to_dict()
    changed |= {"steps": changed["iterations"]} | changed["model"]
    for part in name.removeprefix("model.").split("."):
        changed = changed[part]
    assert changed == value and type(changed) is type(value)


@pytest.mark.parametrize("name", ["depth", "ratio", "smear", "wte.betas", "batch_tokens"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:30",
        "0x10",
        "2001-01-01",
        "1e400",
        "nan",
        "inf",
        "~",
        "null",
        "{}",
        "[]",
        "1,2,3",
        "1;2",
    ],
)
def test_what_means_something_elsewhere_means_nothing_here(name, text):
    with pytest.raises(UserError, match=f"^{re.escape(name)} is "):
        override(get_recipe("run1"), {name: text})


@given(st.integers(1, 2**40), st.floats(0, 1e35, allow_subnormal=False), st.floats(0, 0.999))
def test_every_number_is_read_as_it_is_written(whole, number, part):
    texts = {"batch_tokens": str(whole), "muon.lr": repr(number), "wte.betas": f"{part!r}, 0.5"}
    read = override(get_recipe("run1"), texts)
    assert (read.batch_tokens, read.muon.lr, read.wte.betas) == (whole, number, (part, 0.5))


@given(st.text(max_size=30), st.text(max_size=80))
def test_any_text_is_a_setting_or_a_sentence(name, text):
    for known in (name, "ratio", "depth", "smear", "wte.betas", "positions", "window_pattern"):
        try:
            override(get_recipe("run1"), {known: text})
        except UserError as error:
            assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lr": True}, "lr is True; it must be a number"),
        ({"lr": "0.1"}, "lr is '0.1'; it must be a number"),
        ({"lr": math.nan}, "lr is nan; it must be a finite number"),
        ({"lr": math.inf}, "lr is inf"),
        ({"lr": 10**500}, r"lr is 10{59}\.\.\.; it must be"),
        ({"lr": 0.1, "betas": [0.5]}, "betas is .*; it must be two numbers"),
        ({"lr": 0.1, "betas": [0.5, 1]}, "betas is 1; it must be less than 1"),
        ({"lr": 0.1, "beta": 1}, "there is no setting 'wte.beta'"),
        ({}, r"the recipe does not fit \(wte.lr is missing\); it was"),
        ([0.1], "is not a group of names and values"),
    ],
)
def test_a_record_is_read_strictly(values, says):
    recipe = get_recipe("run1").to_dict() | {"wte": values}
    with pytest.raises(UserError, match=says if isinstance(values, dict) else "group of settings"):
        Recipe.from_dict(recipe)


def test_an_int_will_do_for_a_float_and_a_list_for_a_pair():
    group = AdamWGroup(lr=1, betas=[0, 0.5])
    assert group == AdamWGroup(1.0, (0.0, 0.5)) and type(group.betas) is tuple
    with pytest.raises(UserError, match="lr is -1; it must be at least 0"):
        AdamWGroup(-1)
    with pytest.raises(UserError, match="there is no setting 'rate'"):
        AdamWGroup(lr=1, rate=1)
    with pytest.raises(UserError, match="lr is missing"):
        AdamWGroup()
