"""The ladder's record: searched, planned and told from the runs' files alone."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanogpt2 import lab
from nanogpt2.data.shards import write_shard
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.lab.records import Record, digest, results_folder
from nanogpt2.lab.trials import Results, Trial, machine
from nanogpt2.recipes import YARDSTICK, Recipe, differences
from nanogpt2.rungs import TUNED, Ladder
from nanogpt2.studies import ladder
from nanogpt2.studies.ladder.__main__ import main
from nanogpt2.studies.ladder.expectations import DEEPER, EXPECTATIONS
from nanogpt2.studies.ladder.pictures import worths
from nanogpt2.studies.ladder.plan import AT_BOTH, FIRST, Plan
from nanogpt2.studies.ladder.summary import record_summary, summarize
from nanogpt2.studies.ladder.sweep import RATES, search, searched, sweeps, value_of

PLAN = Plan(Ladder(), range(5))
RECORDED = results_folder() / "ladder"


def entry_of(trial, bpb: float, machine: str = "one") -> dict:
    """What a trial's file says, with a given end."""
    steps = trial.recipe.iterations
    return {
        "name": trial.name, "seed": trial.seed, "identity": trial.identity, "bpb": bpb,
        "bpb_stream": bpb + 0.1, "flops": 1e9 * steps, "cpu_seconds": 1.0,
        "machine": machine, "data": "text", "curve": [{"step": steps, "loss": 3.0}],
    }  # fmt: skip


@pytest.mark.parametrize("sweep", sweeps(), ids=lambda sweep: sweep.name)
def test_a_search_finds_the_best_of_a_bowl(sweep) -> None:
    """Bits that rise with the distance to a wanted place on each axis, in steps of its values."""
    rng = random.Random(sweep.name)
    wanted = {name: rng.randrange(len(values)) for name, values in sweep.axes.items()}
    ends: dict[str, float] = {}

    def bits(recipe: Recipe) -> float:
        places = {name: values.index(value_of(recipe, name)) for name, values in sweep.axes.items()}
        return 1 + sum((places[name] - wanted[name]) ** 2 for name in wanted)

    while missing := search(sweep, ends).missing:
        assert not {trial.identity for trial in missing} & set(ends), "none is trained twice"
        ends |= {trial.identity: bits(trial.recipe) for trial in missing}
    found = search(sweep, ends)
    assert found.best == {name: sweep.axes[name][at] for name, at in wanted.items()}
    assert len(ends) <= min(6 * len(sweep.axes), sum(map(len, sweep.axes.values())))


def test_a_search_passes_over_what_diverged() -> None:
    sweep = sweeps()[0]
    first = search(sweep, {}).missing
    ends = {trial.identity: math.inf for trial in first} | {first[1].identity: 2.0}
    assert search(sweep, ends).best == {"muon.lr": first[1].recipe.muon.lr}


def test_the_plan_has_seeds_of_each_part_before_the_next_and_every_pair_in_it() -> None:
    identities = [trial.identity for trial in PLAN.trials]
    for part, pairs in PLAN.pairs.items():
        for pair in pairs:
            for seed in PLAN.seeds[:FIRST] if part == "deeper" else PLAN.seeds:
                for recipe in (pair.with_it, pair.without_it):
                    assert replace(PLAN.top(seed), recipe=recipe).identity in identities
    first = [t for t in PLAN.trials if t.seed < FIRST and "-" in t.name]
    parts = ["deeper" if t.recipe.depth > 4 else t.name.partition("-")[0] for t in first]
    assert list(dict.fromkeys(parts)) == ["without", "top", "up", "with", "deeper"]
    assert {trial.seed for trial in PLAN.trials} == set(range(10))
    names = {(trial.name, trial.seed) for trial in PLAN.trials}
    assert all((t.against, t.seed) in names for t in PLAN.trials if t.against)


def test_every_technique_was_expected_to_do_something() -> None:
    keys = {pair.key for pairs in PLAN.pairs.values() for pair in pairs}
    assert keys == set(EXPECTATIONS)
    assert {expected.sign for expected in EXPECTATIONS.values()} == {"-", "0", "+"}
    assert {pair.key for pair in PLAN.pairs["deeper"]} == set(DEEPER)


def test_the_larger_yardstick_is_the_small_one_with_more_layers() -> None:
    small = {pair.key: pair for pair in PLAN.pairs["without"]}
    for large in PLAN.pairs["deeper"]:
        for side in ("with_it", "without_it"):
            ours, theirs = getattr(large, side), getattr(small[large.key], side)
            assert set(differences(theirs, ours)) == {"depth"}
            assert dial(recipe=ours).tokens == dial(recipe=theirs).tokens


def test_a_summary_pairs_by_seed_within_a_machine_and_reads_compute_off_the_top(
    tmp_path: Path,
) -> None:
    """Ends that follow a law of compute: a technique that is worth a factor of 1.5."""

    def law(compute: float, seed: int) -> float:
        return (1.5 + 0.05 * seed) * compute**-0.1

    results = Results(tmp_path / "ladder")
    results.folder.mkdir()
    pair = PLAN.pairs["without"][0]
    for seed in range(4):
        for trial in PLAN.reference(seed):
            entry = entry_of(trial, law(trial.recipe.iterations, seed))
            results.write(trial, entry)
        trial = replace(PLAN.top(seed), recipe=pair.without_it, name=f"without-{pair.key}")
        machine = "two" if seed == 3 else "one"
        results.write(trial, entry_of(trial, law(YARDSTICK.iterations / 1.5, seed), machine))
    for seed in range(3):
        top, without, *_ = PLAN.deeper(seed)
        results.write(top, entry_of(top, 1.0))
        results.write(without, entry_of(without, 1.25))
    seconds = {"seconds": {"top": 0.2, f"without-{pair.key}": 0.1}}  # half as long without it
    lab.record(
        "ladder-seconds", command="", configuration={}, seed=0, tokens=0, seconds=0, curve=[],
        results=seconds, folder=tmp_path,
    )  # fmt: skip
    found = summarize(PLAN, results.folder)
    assert (found["done"], found["planned"]) == (4 * 5 + 4 + 3 * 2, len(PLAN.trials))
    assert list(found["noise"]) == ["0", "1", "2", "3"]
    told = found["effects"]["without"][pair.key]
    assert told["seeds"] == [0, 1, 2], "the fourth was run on another machine than its baseline"
    assert told["flops"] == pytest.approx([1.5] * 3)
    assert told["seconds"] == pytest.approx([0.75] * 3)
    assert not told["extrapolated"]

    other = Trial("with-rows", replace(YARDSTICK, packing="stream", warmup_steps=1), 0, "top")
    results.write(other, entry_of(other, 2.0))  # of another study
    kept = lab.recorded("ladder", record_summary(PLAN, results.folder).parent)
    assert kept.seconds == 4 * 5 + 4 + 3 * 2, "a second each, but for what is not the ladder's"
    worth = worths(kept, "without")[pair.key]
    assert worth.sign == "-" and worth.agrees("-") == "yes"
    expected = [law(YARDSTICK.iterations, s) - law(YARDSTICK.iterations / 1.5, s) for s in range(3)]
    assert worth.found.difference == pytest.approx(sum(expected) / 3)
    assert worth.compute["flops"].value == pytest.approx(1.5)
    shown = ladder.worth_table(kept, "without").text
    assert "1.50 (1.50 to 1.50)" in shown and "better" in shown
    assert "-" in ladder.expected_table(kept, "without").text
    assert found["effects"]["deeper"][pair.key]["flops"] == [], "no curve of compute at that depth"
    assert f"{sum(expected) / 3:+.4f} | -0.2500" in ladder.deeper_table(kept).text
    assert "rotary positions" in ladder.worth_picture(kept, "without").text
    both = ladder.deeper_picture(kept).text
    assert f"at depth 4 rotary positions {sum(expected) / 3:+.4f}" in both
    assert "at depth 6 rotary positions -0.2500" in both
    assert f"runs planned: {len(PLAN.trials)}" in ladder.progress(kept).text
    assert "151" in ladder.seeds_table(kept).text


def test_pairs_of_a_second_machine_count_and_what_was_run_on_both_is_told(tmp_path: Path) -> None:
    """The second has no curve of compute of its own; its rounding moves all ends up by 0.01."""
    results = Results(tmp_path / "ladder")
    results.folder.mkdir()
    pair = PLAN.pairs["without"][0]
    for seed in range(3):
        for trial in PLAN.reference(seed):
            results.write(trial, entry_of(trial, trial.recipe.iterations**-0.1))
    without = [replace(trial, seed=seed) for seed, trial in enumerate(PLAN.trials[1:2] * 2)]
    bits = (YARDSTICK.iterations / 1.5) ** -0.1
    for trial in (PLAN.top(0), without[0], PLAN.top(1), without[1]):
        entry = entry_of(trial, YARDSTICK.iterations**-0.1 if trial.name == "top" else bits)
        here = results.folder / f"two-{trial.name}-{trial.seed}.json"
        body = {**entry, "bpb": entry["bpb"] + 0.01, "machine": "two"}
        here.write_text(json.dumps({**body, "sha256": digest(body)}))
    results.write(without[0], entry_of(without[0], bits))
    found = summarize(PLAN, results.folder)
    told = found["effects"]["without"][pair.key]
    assert told["seeds"] == [0, 1]
    assert told["flops"][0] == pytest.approx(1.5), "the first machine's pair comes first"
    assert told["flops"][1] == pytest.approx(1.5, rel=0.05), "read off the first machine's curve"
    assert len(found["noise"]) == 3 and len({*found["noise"].values()}) == 1, "of one machine"

    kept = lab.recorded("ladder", record_summary(PLAN, results.folder).parent)
    shown = ladder.machines_table(kept)
    apart = YARDSTICK.iterations**-0.1 - bits
    assert f"{without[0].name} minus top | 0 | {-apart:+.4f} | {-apart:+.4f} | 0" in shown.text
    assert "top | 1 | " in shown.text and shown.text.count("| 0.01") == 3


def test_runs_that_diverged_are_in_the_tables(tmp_path: Path) -> None:
    results, (pair, other) = Results(tmp_path / "ladder"), PLAN.pairs["without"][:2]
    for seed in range(3):
        results.write(PLAN.top(seed), entry_of(PLAN.top(seed), 2.0 + seed))
        for each in (pair, other):
            trial = Trial(f"without-{each.key}", each.without_it, seed, "top")
            lost = each is pair or seed == 1
            results.write(trial, {**entry_of(trial, 2.1 + seed), **({"bpb": None} if lost else {})})
    kept = lab.recorded("ladder", record_summary(PLAN, results.folder).parent)
    rows = ladder.worth_table(kept, "without").text.splitlines()[1:]
    assert rows[0].startswith(f"{pair.title} |  |  |  | 3 of 3 seeds diverged")
    assert "| 2 | 1 of 3 seeds diverged" in rows[1] and "not recorded yet" in rows[2]
    assert "not recorded yet" not in ladder.expected_table(kept, "without").text.splitlines()[1]


def test_a_record_that_has_just_begun_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "ladder").mkdir()
    kept = lab.recorded("ladder", record_summary(PLAN, tmp_path / "ladder").parent)
    for part in ("without", "up", "later"):
        for shown in (ladder.worth_table, ladder.expected_table, ladder.worth_picture):
            assert shown(kept, part).html
        for table in (ladder.worth_table, ladder.expected_table):
            assert table(kept, part).text.count("not recorded yet") == len(PLAN.pairs[part])
    assert ladder.deeper_table(kept).text.count("not recorded yet") == 2 * len(AT_BOTH)
    assert "at depth 6 none is recorded yet" in ladder.deeper_picture(kept).text
    for shown in (ladder.deeper_table, ladder.sweep_table, ladder.seeds_table):
        assert shown(kept).html
    assert "runs recorded: 0" in ladder.progress(kept).text


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of what the command trains; each run ends at once, the better the nearer its rate is
    to one that is not the recorded search's."""
    names: list[str] = []

    def train_none(asked, protocol, results, *others) -> None:
        for trial in results.pending(asked):
            names.append(trial.name)
            results.write(trial, entry_of(trial, 2 + abs(trial.recipe.muon.lr - 0.01), machine()))

    monkeypatch.setattr("nanogpt2.lab.study_command.run_trials", train_none)
    for split in ("train", "val"):
        write_shard(tmp_path / f"{split}.parquet", ["text"])
    return names


def test_some_runs_alone_take_the_rates_of_the_folders_own_search_and_replace_nothing(
    trained: list[str], tmp_path: Path
) -> None:
    asked = ["--data", str(tmp_path), "--out", str(tmp_path / "own" / "trials"), "--seeds", "0"]

    def files() -> dict[str, str]:
        return {path.name: path.read_text() for path in (tmp_path / "own").rglob("*.json")}

    main(asked)
    assert lab.recorded("ladder", tmp_path / "own").configuration["tuned"] != TUNED
    before = files()
    del trained[:]
    main([*asked, "--only", "without-muon"])
    assert trained == [] and files() == before


def test_some_runs_alone_need_no_search(trained: list[str], tmp_path: Path) -> None:
    asked = [
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "own" / "trials"),
        "--seeds",
        "0",
        "1",
    ]
    with pytest.raises(UserError, match="no run 'with-nothing'"):
        main([*asked, "--only", "with-nothing"])
    assert not (tmp_path / "own").exists()
    main([*asked, "--only", "with-smear"])
    assert sorted(trained) == ["top", "top", "with-smear", "with-smear"]
    main([*asked, "--only", "top"])
    assert len(trained) == 4, "of the seeds that were asked for"
    for _ in range(2):  # and once more from the files alone
        kept = lab.recorded("ladder", tmp_path / "own")
        assert list(kept.results["effects"]["later"]) == ["smear"]
        assert kept.results["effects"]["later"]["smear"]["seeds"] == [0, 1]
        main(["--stage", "summary", *asked[2:]])


def test_the_page_shows_a_record_of_ones_own(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trials = str(tmp_path / "own" / "trials")
    main(["--data", str(tmp_path), "--out", trials, "--seeds", "0", "--only", "with-smear"])
    monkeypatch.setenv("NANOGPT2_RESULTS", str(tmp_path / "own"))
    page = json.loads((RECORDED.parents[1] / "ladder.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in page["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "smear | " in ladder.worth_table(names["kept"], "later").text


def test_seconds_are_recorded_beside_the_folder_that_they_are_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trials = tmp_path / "own" / "trials"
    trials.mkdir(parents=True)
    monkeypatch.setattr(
        "nanogpt2.lab.step_seconds.step_seconds", lambda asked: {t.name: [0.1] for t in asked}
    )
    ours = (results_folder() / "ladder-seconds.json").read_bytes()
    main(["--stage", "seconds", "--out", str(trials)])
    assert (results_folder() / "ladder-seconds.json").read_bytes() == ours
    assert lab.recorded("ladder-seconds", tmp_path / "own").results["seconds"]["top"] == 0.1


def told_of(**ends: list[float]) -> Record:
    """The ladder's record, with so many bits per byte with each technique, and 1 without it."""
    kept = lab.recorded("ladder")
    without = {
        key: {"title": key, "bpb_with": bits, "bpb_without": [1.0] * len(bits),
              "flops": [], "extrapolated": False}
        for key, bits in ends.items()
    }  # fmt: skip
    return replace(kept, results={**kept.results, "effects": {"without": without}})


def test_a_chapter_shows_its_own_rungs_and_says_what_goes_against_a_report() -> None:
    kept = told_of(
        value_embeddings=[0.9, 0.91, 0.9],
        residual_scalars=[1.1, 1.11, 1.1],
        polar_express=[0.8, 0.81, 0.8],
        cautious=[0.9, 1.1, 1.0],
        rope=[1.1],
    )
    lines = ladder.worth_table(kept, "without", "value_embeddings", "windows").text.splitlines()
    assert len(lines) == 3, "as was reported: nothing to say below the table"
    assert "better | a lot, on every axis" in lines[1]
    assert lines[2].startswith("windows SSSL | not recorded yet") and "works well" in lines[2]

    keys = ("residual_scalars", "polar_express", "cautious", "rope")
    *_, said = ladder.worth_table(kept, "without", *keys).text.splitlines()
    assert "Residual_scalars: worse, against the run's own choice; reported: d8 -0.0103" in said
    assert "Polar_express: better; reported: in the noise." in said
    assert "Cautious: not distinguishable; reported: a solid gain" in said
    assert "Rope" not in said, "one seed tells nothing"
    assert "1 | one seed cannot tell" in ladder.worth_table(kept, "without", "rope").text
    assert "fill: var(--ng-c0)" not in ladder.worth_picture(told_of(rope=[1.1]), "without").html
    assert said.endswith("A small model is not a small version of a large one.")
    with pytest.raises(KeyError):
        ladder.worth_table(kept, "without", "no_such_technique")


@pytest.mark.skipif(not list(RECORDED.glob("*.json")), reason="no run is recorded yet")
def test_the_yardstick_has_the_rates_that_the_recorded_sweep_found() -> None:
    found = searched(Results(RECORDED).all())
    if found.missing:
        pytest.skip(f"the recorded sweep lacks {len(found.missing)} runs")
    tuned = dict(found.tuned)
    top = tuned.pop("run1")
    assert {name: value_of(YARDSTICK, name) for name in top} == top and set(RATES) <= set(top)
    assert tuned == TUNED


@pytest.mark.skipif(not list(RECORDED.glob("*.json")), reason="no run is recorded yet")
def test_a_run_made_again_on_another_machine_moves_no_rate() -> None:
    entries = Results(RECORDED).all()
    again = [{**e, "machine": "another", "name": "top", "bpb": 9.0} for e in entries]
    assert searched([*entries, *again]) == searched([*again, *entries]) == searched(entries)


@pytest.mark.skipif(not (RECORDED.parent / "ladder.json").exists(), reason="no summary yet")
def test_the_recorded_summary_is_that_of_the_recorded_runs() -> None:
    kept = lab.recorded("ladder")
    plan = Plan(Ladder(kept.configuration["tuned"]), kept.configuration["seeds"])
    assert json.loads(json.dumps(summarize(plan, RECORDED))) == kept.results
