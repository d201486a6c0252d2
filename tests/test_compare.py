"""Runs beside each other: arms, pairs, refusals, a page that stands alone."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanogpt2.compare import AXES, arms_of, charts, compared, main, notes, settings
from nanogpt2.depth import dial
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.core.statistics import bootstrap_error, centered, paired_error
from nanogpt2.recipes import get_recipe
from nanogpt2.reporting.statistics import compare
from tests.test_reporting import Page


def core_of(correct: list[int], baseline: float = 0.25) -> dict[str, Any]:
    accuracy = sum(correct) / len(correct)
    task = {"accuracy": accuracy, "centered": centered(accuracy, baseline), "correct": correct}
    return {
        "core": task["centered"],
        "label": "mean of 1 tasks (not CORE)",
        "protocol": "nanochat",
        "tasks": {"a task": {**task, "examples": len(correct)}},
    }


def run(folder: Path, seed: int, bpb: float, **more: Any) -> Path:
    """The files of a finished run that ends at ``bpb``."""
    recipe = get_recipe("laptop", **more.get("changes", {}))
    folder.mkdir(parents=True)
    text = {"train": [["a", "1" * 64]], "held_out": [["b", more.get("held_out", "2" * 64)]]}
    config = {
        "name": "laptop",
        "recipe": recipe.to_dict(),
        "dial": asdict(dial(recipe=recipe)),
        "seed": seed,
        "data": "embedded",
        "identity": {"recipe": recipe.to_dict(), "seed": seed, "text": text, "tokenizer": "3" * 64}
        | more.get("identity", {}),
        "init_from": more.get("init_from"),
        "machine": {"processor": more.get("processor", "P"), "commit": more.get("commit", "c")},
    }
    pace = more.get("pace", 0.5)
    steps = more.get("steps", 100)
    records = [
        {"step": step, "tokens": 4096 * step, "seconds": pace * step, "loss": 3.0}
        | ({"val_bpb": bpb + 1 - step / steps} if step * 10 % steps == 0 else {})
        for step in range(1, steps + 1)
    ]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if more.get("finished", True):
        (folder / "evaluation.json").write_text(json.dumps({"val_bpb": bpb, "tokens": 9}))
    if "core" in more:
        (folder / "core.json").write_text(json.dumps(core_of(more["core"])))
    return folder


@pytest.fixture
def four(tmp_path: Path) -> list[Path]:
    """Two seeds each of a baseline and of one that is better by 0.01 and 0.012."""
    swiglu = {"activation": "swiglu"}
    return [
        run(tmp_path / "base-0", 0, 2.0),
        run(tmp_path / "base-1", 1, 2.1),
        run(tmp_path / "swiglu-0", 0, 1.99, changes=swiglu, pace=0.6),
        run(tmp_path / "swiglu-1", 1, 2.088, changes=swiglu, pace=0.6),
    ]


def test_ends_are_paired_by_seed_whatever_the_order_of_folders(four: list[Path]) -> None:
    for order in (four, [four[0], four[3], four[2], four[1]]):
        arms = arms_of(order)
        assert [(arm.name, list(arm.runs)) for arm in arms] == [
            ("base", [0, 1]),
            ("swiglu", [0, 1]),
        ]
        (bpb, seconds) = compared(arms)
        expected = compare([1.99, 2.088], [2.0, 2.1])
        assert bpb.found == expected and bpb.measure == "val_bpb" and bpb.items is None
        assert (seconds.found.difference, seconds.found.deviation) == (pytest.approx(9), 0)
    assert bpb.verdict == "not distinguishable"  # two seeds: the interval is wide
    assert seconds.verdict == "worse"


def test_pairing_takes_out_what_seeds_do_to_both(four: list[Path]) -> None:
    """The seeds are 0.1 apart, the pairs 0.002: unpaired, nothing could be seen."""
    (bpb, _) = compared(arms_of(four))
    assert bpb.found.deviation == pytest.approx(0.002 / math.sqrt(2))


def test_the_command_writes_a_page_that_stands_alone_and_plain_json(
    four: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # a second time over its own
        assert main([*map(str, four), "--out", str(out)]) == 0
    assert "swiglu, bits per byte, held out: -0.011" in capsys.readouterr().out
    text = (out / "compare.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == [] and "<script" not in text and not re.search(r"url\((?!#)", text)
    assert page.described_charts == len(AXES)
    assert len(page.identities) == len(set(page.identities))
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text
    body = json.loads((out / "compare.json").read_text(), parse_constant=lambda name: 1 / 0)
    assert body["baseline"] == "base"
    assert body["differences"] == {"swiglu": {"model.activation": ["relu2", "swiglu"]}}
    (bpb, _) = body["compared"]
    assert bpb["found"]["difference"] == pytest.approx(-0.011)
    assert f"{bpb['found']['difference']:+.4f}" in page.text
    assert [arm["seeds"] for arm in body["arms"]] == [[0, 1], [0, 1]]


def test_each_axis_has_its_unit(four: list[Path]) -> None:
    base, swiglu = arms_of(four)
    per_token = base.one.config["dial"]["flops_per_token"]
    last = {axis: base.curve(axis)[-1] for axis in AXES}
    assert {axis: x for axis, (x, _) in last.items()} == {
        "step": 100, "tokens": 409_600, "flops": 409_600 * per_token, "seconds": 50,
    }  # fmt: skip
    assert all(y == pytest.approx(2.05) for _, y in last.values())
    assert swiglu.curve("seconds")[-1][0] == pytest.approx(60)


def test_one_seed_has_no_interval_and_no_common_seed_no_pair(tmp_path: Path) -> None:
    base = run(tmp_path / "base", 0, 2.0)
    other = run(tmp_path / "gelu", 0, 1.9, changes={"activation": "gelu"})
    far = run(tmp_path / "far", 7, 1.8, changes={"activation": "swiglu"})
    arms = arms_of([base, other, far])
    found = compared(arms)
    assert {row.arm for row in found} == {"gelu"}
    assert {row.verdict for row in found} == {"not distinguishable"}
    assert {row.needed for row in found} == {None}
    told = " ".join(notes(arms))
    assert "gelu: one seed" in told and "far and base share no seed" in told
    assert main([str(base), str(other), "--out", str(tmp_path / "out")]) == 0
    body = json.loads((tmp_path / "out/compare.json").read_text(), parse_constant=lambda n: 1 / 0)
    assert body["compared"][0]["found"]["margin"] is None


def test_seconds_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    base = run(tmp_path / "base", 0, 2.0)
    other = run(tmp_path / "gelu", 0, 1.9, changes={"activation": "gelu"}, processor="Q")
    arms = arms_of([base, other])
    assert [row.measure for row in compared(arms)] == ["val_bpb"]
    assert "another machine" in " ".join(notes(arms))
    assert settings(arms[1], arms[0])["processor"] == ("P", "Q")


def test_seconds_of_an_arm_on_two_machines_are_not_compared(
    four: list[Path], tmp_path: Path
) -> None:
    elsewhere = run(
        tmp_path / "elsewhere", 1, 2.088, changes={"activation": "swiglu"}, processor="Q"
    )
    arms = arms_of([*four[:3], elsewhere])
    assert [row.measure for row in compared(arms)] == ["val_bpb"]
    assert "another machine" in " ".join(notes(arms))


def test_runs_whose_lengths_the_clock_set_are_drawn_and_told(tmp_path: Path) -> None:
    swiglu = {"changes": {"activation": "swiglu"}}
    arms = arms_of([
        run(tmp_path / "base-0", 0, 2.0, steps=100),
        run(tmp_path / "base-1", 1, 2.1, steps=70),
        run(tmp_path / "swiglu-0", 0, 1.9, steps=90, **swiglu),
        run(tmp_path / "swiglu-1", 1, 2.0, steps=60, **swiglu),
    ])  # fmt: skip
    base, other = arms
    assert [x for x, _ in base.curve("step")] == list(range(10, 71, 10))
    (first, second), (_, at) = ((2.0, 2.1), base.curve("step")[4])
    assert at == pytest.approx((first + 1 - 50 / 100 + second + 1 - 50 / 70) / 2), "lines are lines"
    assert all("--ng-c1" in chart["svg"] for chart in charts(arms))
    told = " ".join(notes(arms))
    assert "base are of different lengths: 70, 100 steps" in told and "swiglu are of" in told


def test_what_a_run_began_from_is_a_setting(tmp_path: Path) -> None:
    onward = {
        "init_from": "runs/a",
        "identity": {"start": "7" * 64, "rate_scale": 0.3, "minutes": 3},
    }
    fresh, other = arms_of([run(tmp_path / "a", 0, 2.0), run(tmp_path / "b", 0, 1.9, **onward)])
    found = settings(other, fresh)
    assert found["rates"] == (1, 0.3) and found["minutes"] == (None, 3)
    assert found["start"] == ("its seed", "runs/a, 77777777")


def test_core_is_compared_over_the_same_items_alone(tmp_path: Path) -> None:
    base = run(tmp_path / "base", 0, 2.0, core=[1, 0, 1, 1, 0, 0, 1, 0])
    same = run(tmp_path / "same", 0, 1.9, core=[1, 0, 1, 1, 0, 1, 1, 0], commit="d")
    other = run(tmp_path / "other", 0, 1.9, core=[1, 0, 1], commit="e")
    arms = arms_of([base, same, other])
    (row,) = [row for row in compared(arms) if row.measure == "core"]
    assert row.arm == "same" and row.found.difference == pytest.approx(1 / 8 / 0.75)
    # one item of eight went over: variance (1/8 - 1/64) 8/7 of one, over 8
    assert row.items == pytest.approx(math.sqrt((1 / 8 - 1 / 64) * 8 / 7 / 8) / 0.75)
    told = " ".join(notes(arms))
    assert "other was asked other items" in told and "is a mean of 1 tasks (not CORE)" in told


def test_what_is_hard_for_both_models_is_no_noise_of_their_difference() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(4000) < 0.6
    second = np.where(rng.random(4000) < 0.05, ~first, first)
    tasks = [core_of([int(x) for x in each])["tasks"] for each in (first, second)]
    alone = bootstrap_error([[list(first)]], [0.25])
    paired = paired_error(tasks[0], tasks[1])
    assert paired < 0.5 * alone
    assert paired_error(tasks[0], tasks[0]) == 0
    # and it is the spread of the difference over draws of items
    picks = [rng.integers(0, 4000, 4000) for _ in range(400)]
    spread = np.std([(first[p].mean() - second[p].mean()) / 0.75 for p in picks])
    assert paired == pytest.approx(float(spread), rel=0.15)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main([str(a) for a in arguments]))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_mistakes_are_one_sentence(
    four: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out")
    base, again, better, _ = four
    assert "holds no run" in refused(capsys, base, tmp_path / "nowhere", *out)
    assert "nothing but their seeds" in refused(capsys, base, *out)
    assert "nothing but their seeds" in refused(capsys, base, again, *out)
    assert "are the same run" in refused(capsys, base, better, base, *out)
    other = run(tmp_path / "other", 0, 1.0, held_out="9" * 64, changes={"activation": "gelu"})
    assert "different held-out text" in refused(capsys, base, other, *out)
    (better / "metrics.jsonl").write_text("")
    assert "no validation yet" in refused(capsys, base, better, *out)
    many = [
        run(tmp_path / f"many{n}", 0, 2.0, changes={"logit_softcap": 10.0 + n}) for n in range(7)
    ]
    assert "at most 6" in refused(capsys, *many, *out)
    assert not (tmp_path / "out").exists()


def test_nothing_of_the_users_is_replaced(
    four: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "compare.html").write_text("mine")
    assert "did not make" in refused(capsys, *four, "--out", own)
    assert [(path.name, path.read_text()) for path in own.iterdir()] == [("compare.html", "mine")]
    assert "is a file" in refused(capsys, *four, "--out", own / "compare.html")


def test_an_unfinished_run_is_in_the_curves_alone(tmp_path: Path) -> None:
    base = run(tmp_path / "base", 0, 2.0)
    other = run(tmp_path / "gelu", 0, 1.9, changes={"activation": "gelu"}, finished=False)
    arms = arms_of([base, other])
    assert compared(arms) == []
    assert "is not finished" in " ".join(notes(arms)) and arms[1].curve("step")


def test_a_damaged_run_is_a_users_mistake(four: list[Path]) -> None:
    config = json.loads((four[0] / "config.json").read_text())
    config["recipe"]["model"]["flux"] = 1
    (four[0] / "config.json").write_text(json.dumps(config))
    arms = arms_of(four)
    with pytest.raises(UserError, match="flux"):
        settings(arms[1], arms[0])
