import json

import pytest

from nanogpt2.errors import UserError
from nanogpt2.recipes import RECIPES, Recipe, get_recipe, override


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
