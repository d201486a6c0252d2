"""The clinic: each case is broken by its line, and the measurement that tells sees it."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.errors import UserError
from nanogpt2.lab.seams import Flip, patched
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_config, small_recipe
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.sharded import gradient_of
from nanogpt2.studies import failure_clinic as clinic
from nanogpt2.studies.failure_clinic import measures
from nanogpt2.studies.failure_clinic.cases import CASES, CAUSES, Case, Patient
from nanogpt2.studies.failure_clinic.runs import Setting, carry_state, documents, train
from nanogpt2.studies.failure_clinic.signs import distance

STEPS = 12  # the rows of case 1 come back after ten
BY_KEY = {case.key: case for case in CASES}
BROKEN = [case for case in CASES if case.flip]


@cache
def admitted(key: str) -> Patient:
    return clinic.admit(CASES.index(BY_KEY[key]) + 1, STEPS, 3)


def test_every_case_has_its_cause_among_the_suspects() -> None:
    assert len(CASES) == len(BY_KEY) == 11 and set(BY_KEY) == set(CAUSES) - {"state"}
    assert all(case.key in case.suspects and len(set(case.suspects)) == 5 for case in CASES)
    best = [case.tells[0] for case in BROKEN]
    assert len(set(best)) == len(best)  # a measurement of its own for each


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.key)
def test_a_break_is_one_line(case: Case) -> None:
    assert case.flip
    changed = [line for line in case.flip.diff().splitlines() if line[0] in "+-"]
    assert [line[0] for line in changed] == ["-", "+"]


@pytest.mark.parametrize("key", ["twice", "schedule", "leak", "untied", "shift", "frozen"])
def test_the_telling_number_is_far_from_health_from_the_first_steps(key: str) -> None:
    found = admitted(key)
    best = found.case.tells[0]
    assert distance(found.here[best], found.well[best], 0.0) > 3


def test_rates_of_another_batch_and_a_short_reach() -> None:
    fast, blind = admitted("rate"), admitted("mask")
    assert fast.here["half"] / fast.well["half"] == pytest.approx((256 / 2) ** 0.5)
    assert (blind.here["reach"], blind.well["reach"]) == (1, 127)


def test_rows_without_the_mark_of_a_beginning() -> None:
    found, bos = admitted("bos"), small_data().tokenizer.bos_id
    assert not any((x == bos).any() for x, _ in found.training.batches)
    assert all((x[:, 0] == bos).all() for x, _ in found.healthy.batches)


def test_a_sum_over_two_ranks_doubles_the_norm_and_the_mean_does_not() -> None:
    two, flip = Setting(ranks=2), BY_KEY["ranks"].flip
    summed, mean, one = (
        train(s, 1, 0, f).log[0] for s, f in ((two, flip), (two, None), (Setting(), None))
    )
    assert summed["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert mean["norm"] == pytest.approx(one["norm"], rel=1e-3)
    assert summed["norm"] == pytest.approx(2 * one["norm"], rel=1e-3)


def test_a_doubled_gradient_stays_with_its_twin_but_for_the_epsilon() -> None:
    tiny = Flip("nanogpt2.optim.parameter_groups", '"eps": 1e-10', '"eps": 1e-30')
    once = train(Setting(), 4, 0, tiny).log
    with patched("nanogpt2.optim.sharded.gradient_of", lambda p: 2 * gradient_of(p)):
        twice = train(Setting(), 4, 0, tiny).log
    for a, b in zip(once, twice, strict=True):
        assert b["norm"] == pytest.approx(2 * a["norm"], rel=0.01)
        assert b["loss"] == pytest.approx(a["loss"], abs=0.005)


def test_a_resume_that_keeps_the_tie_goes_on_where_it_was() -> None:
    case = BY_KEY["untied"]
    tied, untied = (train(case.setting, 20, 0, flip) for flip in (None, case.flip))
    losses = tied.series("loss")
    assert measures.leap(untied) > 0.3 > measures.leap(tied)
    assert abs(losses[10] - losses[9]) < 0.5
    assert losses[9] < torch.tensor(2048.0).log() - 0.3


def test_documents_are_the_streams_own_in_another_order() -> None:
    data = small_data()
    stream = data.train[:20_000]
    texts = documents(stream, 0)
    assert texts != documents(stream, 1) and sorted(texts) == sorted(documents(stream, 1))
    first = int((stream == data.tokenizer.bos_id).argmax())
    whole = sum(len(row) for row in data.tokenizer.encode_batch(texts, prepend_bos=True))
    assert abs(whole - (len(stream) - first)) < 0.01 * len(stream)


def test_a_copying_model_echoes() -> None:
    run = train(Setting(small_config(1)), 2, 0)
    for said, share in (([5, 6], 1), ([7, 7], 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measures, "_continued", lambda _, said=said: said * measures.WORDS)
            assert measures.echo(run) == share
    assert all(c.isprintable() for c in measures.written(run))


def test_a_box_hides_cause_and_results_until_they_are_asked_for() -> None:
    patient = admitted("schedule")
    html = clinic.riddle(patient).html
    seen = re.sub(r"<template.*?</template>", "", html, flags=re.S)
    assert patient.case.flip
    line = patient.case.flip.wrong
    assert line in html and line not in seen
    assert patient.case.why[:30] in html and patient.case.why[:30] not in seen
    assert f"{patient.here['last']:.3g}" in html and f"{patient.here['last']:.3g};" not in seen
    for measurement in clinic.MENU.values():
        assert f"{measurement.minutes} min" in seen
    assert html.count("ng-result") == len(clinic.MENU) + html.count('"template.ng-result"')
    shown = clinic.sight(patient).html
    assert CAUSES["schedule"] not in shown and "rate" not in re.sub(r"<s.*?>", "", shown).lower()


def test_signatures_are_in_units_of_luck() -> None:
    assert distance(1.5, 1.0, 0.1) == pytest.approx(5)
    assert distance(1.5, 1.0, 0.0) == pytest.approx(25)  # a fiftieth of 1
    assert distance(150.0, 100.0, 0.0) == pytest.approx(25)
    patients = [admitted("schedule"), admitted("frozen")]
    spread = clinic.healthy_spread(STEPS, 3)
    found = clinic.signatures(patients, spread)
    assert set(found) == set(spread)
    told = clinic.MENU["last"].name
    assert found[told][0] > 3 > found[told][1]
    drawn = clinic.signature_matrix(found, patients).html
    assert "by 2 cases" in drawn and drawn.count(told) == 1
    rows = clinic.summary(patients)
    assert [row[2:] for row in rows] == [
        [" or ".join(clinic.MENU[t].name for t in p.case.tells), CAUSES[p.case.key]]
        for p in patients
    ]


def test_a_healthy_case_is_another_seed_and_shows_no_line() -> None:
    found = admitted("well")
    assert found.training.seed != found.healthy.seed
    for key in ("half", "last", "follows", "read", "unmoved", "reach", "future", "parameters"):
        assert found.here[key] == found.well[key]
    html = clinic.riddle(found).html
    assert '<pre class="ng-diff"' not in html and found.case.why[:30] in html


def test_the_state_of_an_optimizer_comes_back_by_name() -> None:
    model = GPT(small_config(1))
    first, second = (build_optimizer(model, small_recipe()) for _ in range(2))
    model(*small_data().batch(0, 2, 16, 0)).backward()
    first.step()
    carry_state(first, second, 7)
    for (*_, was), (*_, now) in zip(first.shard_state(), second.shard_state(), strict=True):
        assert all(torch.equal(was[key], now[key]) for key in was)
    assert {group["step"] for group in second.param_groups} == {7}


def test_the_opening_drawing_asks_at_every_station() -> None:
    drawn = clinic.ward("why").html
    assert drawn.count("?</text>") >= 14 and "who sees whom?" in drawn


def test_a_case_of_the_lab_refuses_an_answer_that_is_no_suspect() -> None:
    with pytest.raises(UserError):
        lab.case("Q", ["a", "b"], "c", "<p>why</p>", [("m", 1, "2")])
