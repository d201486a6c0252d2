"""What the chapter on CORE draws and measures."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nanogpt2
from nanogpt2.data import bundle
from nanogpt2.errors import UserError
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.core.results import CoreResult, TaskResult
from nanogpt2.evals.core.tasks import Kind, Task
from nanogpt2.lab import small_config
from nanogpt2.model.gpt import GPT
from nanogpt2.reported import RUN4_CORES
from nanogpt2.studies import core
from nanogpt2.studies.core.measures import grams, guessing


def task(golds: list[int], options: int = 4, baseline: float = 0.2) -> Task:
    items = [
        {"query": f"q {i}", "choices": [f"c {n}" for n in range(options)], "gold": gold}
        for i, gold in enumerate(golds)
    ]
    return Task("made", Kind.MULTIPLE_CHOICE, 0, " ", baseline, 0.25, False, items)


def test_guessing_is_counted_from_the_items() -> None:
    made = task([0, 0, 0, 1])
    assert guessing(made) == (0.25, 0.75)
    (row,) = core.chance_rows([made])
    assert row[1:] == [0.2, 0.25, 0.25, 0.75, "+0.062"]
    assert core.core_of_guessing([made]) == pytest.approx((0.0625, 0.6875))
    assert core.core_of_guessing([made], corrected=True)[0] == pytest.approx(0)


def test_formula_and_bootstrap_agree() -> None:
    made = task([0] * 400)
    right = [i < 120 for i in range(400)]
    result = CoreResult(0.125, {"made": TaskResult(0.3, 0.125, right)})
    draws = core.bootstrap(result, {"made": made}, draws=4000)
    by_formula = core.error_by_formula({"made": 0.3}, [made], {"made": 400})
    assert by_formula == pytest.approx(math.sqrt(0.3 * 0.7 / 400) / 0.8)
    fewer = core.error_by_formula({"made": 0.3}, [made], {"made": 100})
    assert fewer == pytest.approx(2 * by_formula)
    assert draws.std() == pytest.approx(by_formula, rel=0.06)
    assert draws.mean() == pytest.approx(0.125, abs=4 * by_formula / math.sqrt(4000))
    assert "95 of 100" in core.bootstrap_figure(draws, 0.125)[1]


def test_certainty_is_the_normal_tail() -> None:
    assert core.certainty(0.0, 5, 0.01) == 0.5
    samples = np.random.default_rng(0).normal(0.004, 0.0062, (100_000, 4)).mean(1)
    assert core.certainty(0.004, 4, 0.0062) == pytest.approx((samples > 0).mean(), abs=0.005)
    assert "50.0%" in core.seeds_frame(0.0, 8)[1]


def test_margins_are_the_leaderboards() -> None:
    rows = {name: (runs, margin) for name, runs, _, margin in core.margin_rows()}
    assert rows["run2"] == (1, "+0.0013") and rows["run4"] == (7, "+0.0006")
    assert rows["run5"] == (5, "+0.0125") and rows["run6"] == (5, "+0.0061")
    assert np.mean(RUN4_CORES) == pytest.approx(0.25714, abs=1e-5)


def test_centering_frame_is_zero_at_chance_and_one_at_best() -> None:
    found = {
        a: re.findall(r"accuracy ([+-]\d\.\d\d)", core.centering_frame("1 of 4 options", a)[1])
        for a in (0.25, 1.0, 0.0)
    }
    assert found == {0.25: ["+0.00"], 1.0: ["+1.00"], 0.0: ["-0.33"]}


def test_grams_ignore_case_and_marks_and_keep_order() -> None:
    first = grams("The cat, sat. On a mat", 3)
    assert first & grams("see: THE CAT SAT", 3)
    assert not first & grams("sat cat the", 3)
    assert len(first) == 4 and not grams("two words", 3)


def test_mean_loss_is_the_naive_one() -> None:
    model = GPT(small_config(1, n_embd=32, n_head=1, n_kv_head=1)).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_()
    tokens = [3, 1, 4, 1, 5, 9]
    with torch.no_grad():
        logits = model(torch.tensor([tokens]))[0]
    naive = F.cross_entropy(logits[3:5], torch.tensor(tokens[4:]))
    assert core.mean_loss(model, tokens, 4) == pytest.approx(float(naive), rel=1e-4)


def test_real_tasks(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOGPT2_CORE_BUNDLE", str(shared_dir / "core_eval_bundle"))
    bundle = core.core_bundle()
    assert [f"{row[1]:.6f}" for row in core.size_rows(bundle)][-1] == "0.256525"
    tasks = load_tasks(bundle)
    assert sum(row[2] for row in core.kind_rows(tasks)) == 91_037
    counts = core.published_counts(tasks)
    assert sum(counts.values()) == 17_345 and max(counts.values()) == 1000
    xl = published_scores(bundle)["1.5B"]
    assert core.error_by_formula(xl, tasks, counts) == pytest.approx(0.0071, abs=5e-5)
    for label, accuracy in xl.items():  # whole counts over that many items, as the file says
        assert accuracy * counts[label] == pytest.approx(round(accuracy * counts[label]), abs=1e-2)
    assert {row[0] for row in core.chance_rows(tasks)} == {
        "commonsense_qa", "agi_eval_lsat_ar", "boolq", "bigbench_language_identification",
    }  # fmt: skip
    copa = core.by_label(tasks)["copa"]
    assert core.item_text(copa, copa.items[0]).endswith("water flowed from the spout.")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No checkout's neighbour, no variable, an empty cache: the folder of its bundle."""
    monkeypatch.delenv("NANOGPT2_CORE_BUNDLE", raising=False)
    monkeypatch.setattr(nanogpt2, "__file__", str(tmp_path / "a" / "nanogpt2" / "__init__.py"))
    monkeypatch.setattr(bundle, "cache_place", lambda: tmp_path)
    monkeypatch.setattr(bundle, "user_cache", lambda cure: tmp_path)
    return tmp_path / "eval_bundle"


def test_without_a_network_the_chapter_says_what_it_needs(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path) -> Path:
        assert "fetching CORE's tasks, once (162 MB)" in capsys.readouterr().err
        raise UserError("could not download it")

    monkeypatch.setattr("nanogpt2.data.download.download_bundle", refuse)
    sentence = "could not download it; or set NANOGPT2_CORE_BUNDLE to DIR, a folder that holds"
    with pytest.raises(UserError, match=sentence):
        core.core_bundle()


def test_with_kept_tasks_the_chapter_needs_no_network(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / "inside").mkdir(parents=True)
    (alone / "inside" / "core.yaml").touch()
    monkeypatch.setattr(
        "nanogpt2.data.download.download_bundle", lambda *_: pytest.fail("it was asked for")
    )
    assert core.core_bundle() == alone / "inside"
    assert capsys.readouterr().err == ""


def test_first_choices_are_the_argmax_of_each_place() -> None:
    model = GPT(small_config(1, n_embd=32, n_head=1, n_kv_head=1)).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_()
        expected = model(torch.tensor([[7, 8, 9]]))[0].argmax(-1)
    assert core.first_choices(model, [7, 8, 9, 10]) == expected.tolist()


def test_the_opening_scores_what_the_protocol_scores() -> None:
    told = core.three_kinds().text
    assert "because it rained.: scored is rained., mean 1.5" in told
    assert "The cup is too large.: scored is is too large., mean 1.0" in told
    assert "the city Paris.: scored is the city Paris." in told
    assert "is left: 0.167" in told
