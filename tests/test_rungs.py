"""The ladder of recipes: from a plain GPT-2 to run 1, one technique at a time."""

from __future__ import annotations

import pytest

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.recipes import RUN1, YARDSTICK, differences, get_recipe
from nanogpt2.rungs import FOOT, Ladder, main

LADDER = Ladder()


def test_the_foot_is_a_plain_gpt2_and_the_top_is_the_yardstick() -> None:
    foot = LADDER.climbed[FOOT]
    sizes = ("n_layer", "n_head", "n_kv_head", "n_embd", "sequence_len", "vocab_size")
    assert foot.model == GPTConfig.gpt2(**{name: getattr(foot.model, name) for name in sizes})
    assert (foot.matrices, foot.packing, foot.muon.beta2) == ("adamw", "stream", 1.0)
    assert list(LADDER.climbed.values())[-1] == LADDER.top == YARDSTICK


def test_every_rung_changes_something_that_no_other_rung_of_its_kind_does() -> None:
    steps = list(LADDER.climbed.values())
    for below, above in zip(steps, steps[1:], strict=False):
        assert differences(below, above)
    switches = [
        name
        for rung in LADDER.rungs
        for name in differences(LADDER.top, LADDER.without(rung.key))
        if not name.endswith((".lr", ".betas", "wte_std", "divisor", "warmup_steps"))
    ]
    assert len(switches) == len(set(switches)) >= len(LADDER.rungs)
    assert all(differences(LADDER.top, recipe) for recipe in LADDER.later.values())


def test_titles_differ_and_leave_room_for_a_picture_beside_them() -> None:
    titles = [rung.title for rung in LADDER.rungs] + [r.summary for r in LADDER.later.values()]
    assert len(set(titles)) == len(titles) and max(map(len, titles)) <= 33


def test_a_difference_is_told_by_the_settings_that_make_it() -> None:
    changed = get_recipe("run1", **{"muon.lr": 0.5, "smear": True})
    found = differences(RUN1, changed)
    assert found == {"model.smear": (False, True), "muon.lr": (0.02, 0.5)}
    texts = {name: str(value).strip("()") for name, (_, value) in found.items()}
    assert get_recipe("run1", **texts) == changed
    assert not differences(RUN1, RUN1)


def test_two_recipes_are_compared_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--diff", "gpt2", "rope"])
    assert capsys.readouterr().out == "model.positions: learned -> rope\n"
    main(["--diff", "yardstick", "with-smear"])
    main(["--diff", "without-qk_norm", "yardstick"])
    main(["--diff", "run1", "run1"])
    assert capsys.readouterr().out == (
        "model.smear: False -> True\nmodel.qk_norm: False -> True\nrun1 and run1 are the same\n"
    )
    with pytest.raises(UserError, match="unknown recipe 'run9'"):
        main(["--diff", "run1", "run9"])
