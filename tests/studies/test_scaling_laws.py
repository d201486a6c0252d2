"""The scaling record: laws that are known are found again, and nothing is said that was not run."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.depth import Dial, dial
from nanogpt2.errors import UserError
from nanogpt2.lab.trials import Results
from nanogpt2.recipes import YARDSTICK
from nanogpt2.reported import CHINCHILLA_PARAMETERS, CHINCHILLA_TOKENS
from nanogpt2.studies.scaling_laws.__main__ import main
from nanogpt2.studies.scaling_laws.fits import (
    DRAWS,
    Law,
    bootstrapped,
    bowl,
    critical_batch,
    exponent,
    fit_law,
    tokens_to_reach,
    valley,
)
from nanogpt2.studies.scaling_laws.measures import (
    NOT_YET,
    UNBRACKETED,
    batch_rows,
    count_rows,
    extrapolated_rows,
    foretold,
    held_rows,
    interval,
    points_in,
    printed_law,
    rate_rows,
    ratio_spread,
    reported_rows,
    shrinking,
    valley_rows,
    waste_rows,
)
from nanogpt2.studies.scaling_laws.pictures import grid_frames, parabola, rate_frames
from nanogpt2.studies.scaling_laws.plan import (
    BATCH_DEPTHS,
    BUDGETS,
    FEWEST_STEPS,
    MOST_TOKENS,
    Plan,
)
from nanogpt2.studies.scaling_laws.summary import COUNTS, summarize

PLAN = Plan()
CHINCHILLA = Law(1.69, 406.4, 0.34, 410.7, 0.28)
"""Hoffmann et al., section 3.3"""


def test_the_law_of_noiseless_runs_is_found_again():
    sizes, tokens = np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e6, 1e8, 5))
    N, D = sizes.ravel(), tokens.ravel()
    found = fit_law(N, D, CHINCHILLA(N, D))
    assert found.exponent == pytest.approx(CHINCHILLA.exponent, abs=0.01)
    assert (found.alpha, found.beta) == pytest.approx((0.34, 0.28), abs=0.01)
    assert found(N, D) == pytest.approx(CHINCHILLA(N, D), rel=1e-3)


def test_a_law_of_five_numbers_wants_five_places():
    with pytest.raises(UserError, match="record more"):
        fit_law([1e5] * 9, [1e6] * 9, [1.0] * 9)


@pytest.mark.parametrize("first", [2.1, 3.0, 8.0])
def test_runs_that_fall_by_a_step_hold_no_exponent(first):
    N = [N for N in (1e5, 1.1e5, 1.21e5) for _ in range(3)]
    with pytest.raises(UserError, match="leave the exponents open"):
        fit_law(N, [1e6, 2e6, 4e6] * 3, [first] * 3 + [2.0] * 6)


@given(st.floats(-3, 3), st.floats(0.1, 5), st.floats(-2, 2))
def test_a_bowl_is_found_where_it_is_and_refused_where_it_is_not_bracketed(best, bend, low):
    x = [best - 1, best - 0.3, best + 0.2, best + 1.5]
    assert bowl(x, [low + bend * (at - best) ** 2 for at in x]) == pytest.approx((best, low))
    with pytest.raises(UserError, match="widen"):
        bowl(x, [low - bend * (at - best) ** 2 for at in x])
    with pytest.raises(UserError, match="widen"):
        bowl(x, [low + bend * (at - best - 9) ** 2 for at in x])


@given(st.floats(0.1, 0.8), st.floats(0.1, 0.8), st.floats(1e12, 1e24), st.floats(0.2, 5))
def test_the_best_size_is_the_lowest_and_what_another_costs_is_paid_back(alpha, beta, C, off):
    law = Law(1.0, 300.0, alpha, 500.0, beta)
    N, D = law.best(C)
    assert pytest.approx(C) == 6 * N * D
    assert law(N, D) <= law(N * off, D / off) * (1 + 1e-12)
    larger = C * law.compute_factor(off)  # at the ratio that goes with that size
    there, tokens = law.best(larger)
    assert law(there * off, tokens / off) == pytest.approx(law(N, D), rel=1e-6)


def test_the_printed_law_of_chinchilla_would_not_build_chinchilla_and_the_refit_would():
    N, D = CHINCHILLA_PARAMETERS, CHINCHILLA_TOKENS
    assert printed_law("hoffmann2022training").best(6 * N * D)[0] < N / 2
    assert printed_law("besiroglu2024chinchilla").best(6 * N * D)[0] == pytest.approx(N, rel=0.1)


def test_a_lopsided_valley_is_judged_near_its_lowest_run_alone():
    x = [0.0, 1.0, 2.0, 3.0, 4.0, 9.0]
    y = [(at - 2.2) ** 2 for at in x[:-1]] + [500.0]
    assert valley(x, y) == pytest.approx((2.2, 0.0), abs=1e-9)
    doubled = valley(x + x, [v + 0.1 for v in y] + [v - 0.1 for v in y])
    assert doubled == pytest.approx((2.2, 0.0), abs=1e-9), "runs at one place are averaged"
    assert valley(x, y, reach=9) != pytest.approx((2.2, 0.0), abs=0.1)


@given(st.floats(100, 1e5), st.floats(1e4, 1e9))
def test_the_critical_batch_doubles_tokens_and_steps(critical, fewest):
    batch = [512, 2048, 8192]
    found = critical_batch(batch, [fewest * (1 + B / critical) for B in batch])
    assert found == pytest.approx((critical, fewest))
    tokens = fewest * (1 + found[0] / critical)
    least_steps = fewest / critical
    assert tokens == pytest.approx(2 * fewest)
    assert tokens / found[0] == pytest.approx(2 * least_steps)


def test_a_critical_batch_that_may_be_any_has_no_end():
    """Where tokens do not grow with the batch it is infinite, and so is the interval's end."""
    assert critical_batch([512, 2048, 8192], [1e6, 1e6, 0.9e6])[0] == math.inf
    runs = [(512, 1.00e6), (1024, 1.03e6), (2048, 0.99e6), (4096, 1.02e6), (8192, 1.04e6)]
    found = bootstrapped(runs, "B", numbers=lambda of: critical_batch(*zip(*of, strict=True))[:1])
    assert 0 < found["B"]["low"] < found["B"]["value"] and found["B"]["high"] is None
    flat = bootstrapped(runs[::2][:2], "B", numbers=lambda of: (math.inf,))
    assert flat == {"B": None}


def test_tokens_to_a_loss_are_read_between_lengths_and_never_beyond():
    tokens, bpb = [1e6, 4e6, 2e6], [2.0, 1.6, 1.8]
    assert tokens_to_reach(1.9, tokens, bpb) == pytest.approx(math.sqrt(2) * 1e6)
    assert tokens_to_reach(1.6, tokens, bpb) == pytest.approx(4e6)
    assert tokens_to_reach(1.5, tokens, bpb) is None
    assert tokens_to_reach(1.7, tokens, [1.6, 1.6, 1.8]) is None, "longer was not better"


def test_bootstrapped_intervals_hold_the_truth_about_as_often_as_they_say():
    random_ = random.Random(0)
    held = 0
    for _ in range(100):
        runs = [random_.gauss(5.0, 1.0) for _ in range(40)]
        found = bootstrapped(runs, "mean", numbers=lambda drawn: (sum(drawn) / len(drawn),))
        held += found["mean"]["low"] <= 5.0 <= found["mean"]["high"]
    assert 85 <= held <= 100


def test_budgets_are_paid_in_full_and_no_run_is_all_schedule():
    for (_, budget), recipe in PLAN.grid.items():
        made = dial(recipe=recipe)
        assert made.total_flops == pytest.approx(budget, rel=0.01)
        assert made.iterations >= FEWEST_STEPS
        assert made.tokens <= MOST_TOKENS
        assert recipe.muon.momentum_steps <= made.iterations / 6 + 1
    sizes = {b: sum(budget == b for _, budget in PLAN.grid) for b in BUDGETS}
    assert min(sizes.values()) >= 4, sizes
    names = [trial.name for trial in PLAN.trials]
    assert len(set(names)) * len(PLAN.seeds) == len(names)


def test_a_seed_of_the_plan_ends_in_a_morning_and_its_largest_runs_come_first():
    yardstick = dial(recipe=YARDSTICK).total_flops
    costs = {
        part: [dial(recipe=recipe).total_flops for recipe in recipes.values()]
        for part, recipes in PLAN.parts.items()
    }
    assert sum(map(sum, costs.values())) < 85 * yardstick
    for part, flops in costs.items():
        assert flops[0] >= 0.99 * max(flops) and flops[-1] <= 1.01 * min(flops), part


def test_a_batch_sees_the_same_tokens_and_a_width_is_the_one_named():
    for (_, batch, length), recipe in PLAN.batches.items():
        made = dial(recipe=recipe)
        assert made.batch_tokens == batch
        assert made.tokens == pytest.approx(length * 576 * 2048, rel=0.02)
    for (_, width, _), recipe in PLAN.widths.items():
        assert (dial(recipe=recipe).n_embd, recipe.iterations) == (width, 288)
    assert {r.matrices for (s, _, _), r in PLAN.widths.items() if s != "muon.lr"} == {"adamw"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs that end where laws say: Chinchilla's, a critical batch of 3,000, rates as 1 / width."""
    results = Results(tmp_path_factory.mktemp("record") / "scaling_laws")
    results.folder.mkdir()
    for part, recipes in PLAN.parts.items():
        for where, recipe in recipes.items():
            made = dial(recipe=recipe)
            match part:
                case "grid":
                    law = Law(0.5, 60.0, 0.34, 60.0, 0.36)
                    bpb = law(made.scaling_parameters, made.tokens)
                case "batch":
                    bpb = _learned(made)
                case _:
                    power = 0.0 if where[0] == "muon.lr" else -1.0
                    scale = 1 if where[0] == "muon.lr" else (where[1] / 768) ** -0.5
                    best = math.log((0.02 if power == 0 else 0.005) * (where[1] / 128) ** power)
                    # one run is in both parts, and must end alike
                    bpb = _learned(made) + (math.log(where[2] * scale) - best) ** 2
            trial = PLAN.trial(part, where, 0)
            told = {"name": trial.name, "seed": 0, "identity": trial.identity, "bpb": bpb,
                    "tokens": made.tokens, "cpu_seconds": 1.0, "machine": "one",
                    "data": "text"}  # fmt: skip
            results.write(trial, told)
    return results.folder


def _learned(made: Dial) -> float:
    return 3.0 - 0.1 * math.log(made.tokens / (1 + made.batch_tokens / 3000))


def test_what_was_put_in_comes_out_of_the_summary(folder, capsys):
    main(["--stage", "summary", "--out", str(folder)])
    found = json.loads(Path(capsys.readouterr().out.strip()).read_text())["results"]
    assert (found["done"], found["planned"]) == (len(PLAN.trials), len(PLAN.trials))
    law = found["laws"]["matrices and head"]
    assert Law(**law["law"]).alpha == pytest.approx(law["alpha"]["value"], abs=1e-3)
    assert law["alpha"]["value"] == pytest.approx(0.34, abs=0.03)
    assert law["exponent"]["value"] == pytest.approx(0.36 / 0.70, abs=0.01)
    flops, sizes, tokens, _ = zip(*law["optima"], strict=True)
    assert law["N_growth"]["value"] == pytest.approx(exponent(flops, sizes))
    assert law["ratio"]["value"] == pytest.approx(np.exp(np.mean(np.log(np.divide(tokens, sizes)))))
    for depth in BATCH_DEPTHS:
        told = found["batches"][str(depth)]
        assert len(told["tokens"]) >= 3
        assert told["critical"]["value"] == pytest.approx(3000, rel=0.05)
    assert found["rates"]["muon.lr"]["exponent"] == pytest.approx(0.0, abs=1e-6)
    assert found["rates"]["matrices_adamw.lr"]["exponent"] == pytest.approx(-1.0, abs=1e-6)
    assert set(found["laws"]) == set(COUNTS) == set(ratio_spread(found)) == set(found["steadiest"])
    assert 0 < sum(found["steadiest"].values()) <= DRAWS
    for _, counts, a, ours, inside in held_rows(found):
        told = found["laws"][counts]["N_growth"]
        assert interval(told) == ours
        assert inside == ("yes" if told["low"] <= float(a) <= told["high"] else "no")
    rows = valley_rows(found, "matrices and head")
    assert [row[0] for row in rows] == [f"{C:.2g}" for C in BUDGETS]
    assert [row[1] for row in rows if row[1] != UNBRACKETED] == list(sizes)
    for _, measured, said, apart in foretold(points_in(found)):
        assert abs(apart) < 0.01 and said - measured == pytest.approx(apart)
    figure, told = grid_frames(found)(BUDGETS[2], "matrices and head")
    assert "Lowest at" in told and len(figure.axes[0].lines) == 3
    assert {row[0]: row[-1] for row in rate_rows(found)} == {
        "muon.lr": "+0.00",
        "matrices_adamw.lr": "-1.00",
    }


def test_an_empty_record_says_nothing(tmp_path):
    (tmp_path / "scaling_laws").mkdir()
    found = summarize(PLAN, tmp_path / "scaling_laws")
    assert (found["done"], found["laws"], found["batches"]) == (0, {}, {})
    assert all(not told["best"] for told in found["rates"].values())
    for rows in (valley_rows(found, "matrices and head"), count_rows(found), batch_rows(found),
                 rate_rows(found), waste_rows(found, (0.5, 2.0))):  # fmt: skip
        assert [row[0] for row in rows] == [NOT_YET]
    assert foretold(points_in(found)) == [] and ratio_spread(found) == {}
    assert {row[3] for row in held_rows(found)} == {NOT_YET}
    for frame in (grid_frames(found)(BUDGETS[0], "all parameters"), rate_frames(found)("Muon")):
        assert NOT_YET in frame[1]


def test_without_text_the_command_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match="--data DIR"):
        main(["--out", str(tmp_path / "scaling_laws")])


def test_an_interval_says_what_it_has_and_what_it_lacks():
    found = {"value": 0.5, "low": 0.4, "high": 0.61, "draws": DRAWS}
    assert interval(found) == "0.50 (0.40 to 0.61)"
    assert interval({**found, "draws": 9}) == f"0.50 (0.40 to 0.61), from 9 of {DRAWS} draws"
    assert interval({**found, "high": None}) == "0.50 (0.40 to no end)"
    assert "too few" in interval({**found, "low": None, "high": None})
    assert interval(None) == UNBRACKETED
    assert interval(None, missing=NOT_YET) == NOT_YET


def test_runs_near_the_best_alone_leave_a_law_loose():
    law = printed_law("besiroglu2024chinchilla")
    near, wide = extrapolated_rows(law, 0.006, (1.5, 4.0), 1e23, draws=8)
    assert float(near[-1]) > float(wide[-1]) >= 1


def test_a_picture_without_a_valley_says_so():
    _, told = parabola([1e5, 2e5, 4e5], [1.0, 1.2, 1.5])
    assert "No best size" in told


def test_what_was_reported_of_the_valleys_agrees_with_itself():
    for C, ratio, N, D, _ in reported_rows():
        assert pytest.approx(ratio) == D / N
        assert pytest.approx(float(C), rel=0.01) == 6 * N * D
    power, start = shrinking({d: 3 * d**-1.5 for d in (2, 5, 9)})
    assert (power, start) == pytest.approx((-1.5, 3.0))
