"""Variations of the yardstick: the runs they take, the pairs they make, what the page says."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from nanogpt2 import lab
from nanogpt2.errors import UserError
from nanogpt2.files import read_json
from nanogpt2.lab.records import digest, results_folder
from nanogpt2.lab.trials import Results
from nanogpt2.lab.variations import (
    Variation,
    Variations,
    judged,
    record_summary,
    record_variations,
    summarize,
    trials,
    variations_table,
)
from nanogpt2.rungs import Ladder
from nanogpt2.studies.norms import changes as norms
from nanogpt2.studies.plain_gpt import changes as plain_gpt
from nanogpt2.studies.value_embeddings import changes as value_embeddings
from nanogpt2.studies.what_did_not_work.plan import IDEAS
from nanogpt2.studies.windows import changes as windows

STUDIES: dict[str, Variations] = {
    "norms": norms.VARIATIONS,
    "plain_gpt": plain_gpt.VARIATIONS,
    "value_embeddings": value_embeddings.VARIATIONS,
    "what_did_not_work": IDEAS,
    "windows": windows.VARIATIONS,
}
SEEDS = (0, 1)
TWO = {
    "gelu": Variation("GELU", "0", "as good", {"activation": "gelu"}),
    "same": Variation("nothing", "+", "a change of code is one, too", within=nullcontext),
}


def results_of(folder: Path) -> Results:
    """Runs of which each variation's number is its place in the list, in hundredths of a bit."""
    results = Results(folder)
    for trial in trials(TWO, SEEDS):
        off = [*TWO].index(trial.name.removeprefix("with-")) + 1 if trial.against else 0
        entry = {
            "name": trial.name, "seed": trial.seed, "identity": trial.identity,
            "bpb": 2 + 0.1 * trial.seed + 0.01 * off * (1 + 0.02 * trial.seed),
            "cpu_seconds": 100.0, "parameters": 1000 + off, "machine": "one", "data": "text",
        }  # fmt: skip
        results.write(trial, entry)
    return results


def test_the_top_comes_first_and_no_two_runs_are_alike() -> None:
    planned = trials(TWO, SEEDS)
    assert [t.name for t in planned] == ["top", "with-gelu", "with-same"] * 2
    assert len({t.identity for t in planned}) == len(planned)
    assert planned[0].recipe == planned[2].recipe == Ladder().top
    assert planned[1].recipe.model.activation == "gelu"


def test_a_summary_pairs_each_variation_with_the_top_of_its_seed(tmp_path: Path) -> None:
    results = results_of(tmp_path / "ladder")
    found = summarize("two", TWO, SEEDS, results.folder)
    assert (found["done"], found["planned"]) == (6, 6)
    for place, told in enumerate(found["found"].values(), 1):
        gaps = [a - b for a, b in zip(told["bpb_with"], told["bpb_without"], strict=True)]
        assert gaps == pytest.approx([0.01 * place, 0.0102 * place])
    kept = lab.recorded("two", record_summary("two", TWO, SEEDS, results.folder).parent)
    assert kept.results == json.loads(json.dumps(found))
    shown = lab.variations_table(kept).text
    assert "GELU | +0.0101" in shown and "nothing | +0.0202" in shown and "worse" in shown


def test_a_seed_counts_once_however_many_machines_ran_it(tmp_path: Path) -> None:
    results = results_of(tmp_path / "ladder")
    for entry in results.all():
        path = results.folder / f"{entry['name']}.{entry['seed']}.other.json"
        body = {**entry, "machine": "two", "bpb": entry["bpb"] + 1}
        path.write_text(json.dumps({**body, "sha256": digest(body)}))
    found = summarize("two", TWO, SEEDS, results.folder)
    assert found["machines"] == ["one", "two"]
    assert all(told["seeds"] == [0, 1] for told in found["found"].values())


def test_a_mean_over_the_runs_that_survived_is_no_verdict(tmp_path: Path) -> None:
    results = results_of(tmp_path / "runs")
    lost = {("with-gelu", 1), ("with-same", 0), ("with-same", 1)}
    for trial, entry in ((t, e) for t in trials(TWO, SEEDS) for e in results.all()):
        if trial.identity == entry["identity"] and (trial.name, trial.seed) in lost:
            results.write(trial, {**entry, "bpb": None})
    kept = lab.recorded("two", record_summary("two", TWO, SEEDS, results.folder).parent)
    assert judged(kept) == {"gelu": "1 of 2 seeds diverged", "same": "2 of 2 seeds diverged"}
    gelu, same = variations_table(kept).text.splitlines()[1:]
    assert "| 1 | 1 of 2 seeds diverged" in gelu and "|  |  | 0 | 2 of 2 seeds diverged" in same


def test_a_record_of_more_runs_is_not_replaced(tmp_path: Path) -> None:
    results = results_of(tmp_path / "runs")
    before = record_summary("two", TWO, SEEDS, results.folder).read_bytes()
    with pytest.raises(UserError, match=r"tells of 6 runs, .* there are 3; .*--seeds"):
        record_summary("two", TWO, SEEDS[:1], results.folder)
    assert (tmp_path / "two.json").read_bytes() == before
    (tmp_path / "two.json").write_text('["mine"]')
    with pytest.raises(UserError, match="two.json is not what was recorded"):
        record_summary("two", TWO, SEEDS, results.folder)
    assert (tmp_path / "two.json").read_text() == '["mine"]'


def test_runs_of_different_texts_are_not_compared(tmp_path: Path) -> None:
    results = results_of(tmp_path / "ladder")
    trial = trials(TWO, SEEDS)[0]
    entry = next(e for e in results.all() if e["identity"] == trial.identity)
    results.write(trial, {**entry, "data": "another text"})
    with pytest.raises(UserError, match="different texts"):
        summarize("two", TWO, SEEDS, results.folder)


def test_a_command_without_text_says_what_to_give_and_a_further_stage_needs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="--data DIR"):
        record_variations("two", "Two.", TWO, ["--out", str(tmp_path / "ladder")])
    made = tmp_path / "further.json"
    argv = ["--stage", "further", "--out", str(tmp_path / "ladder")]
    record_variations("two", "Two.", TWO, argv, further=lambda beside: beside / "further.json")
    assert capsys.readouterr().out == f"{made}\n"
    summed = ["--stage", "summary", "--out", str(tmp_path / "ladder")]
    (tmp_path / "ladder").mkdir()
    with pytest.raises(UserError, match="holds no runs"):
        record_variations("two", "Two.", TWO, summed)
    assert not (tmp_path / "two.json").exists()
    results_of(tmp_path / "ladder")
    record_variations("two", "Two.", TWO, summed)
    assert read_json(tmp_path / "two.json", "")["results"]["done"] == 6


@pytest.mark.parametrize("key", STUDIES)
def test_a_studys_variations_are_runs_of_their_own_and_were_expected_to_do_something(
    key: str,
) -> None:
    variations = STUDIES[key]
    identities = {trial.identity for trial in trials(variations, SEEDS)}
    assert len(identities) == 2 * (1 + len(variations))
    assert {v.expected for v in variations.values()} <= {"-", "0", "+"}
    assert all(v.because for v in variations.values())


@pytest.mark.parametrize("key", STUDIES)
def test_a_recorded_summary_is_that_of_the_recorded_runs(key: str) -> None:
    if not (results_folder() / f"{key}.json").exists():
        pytest.skip("no run is recorded yet")
    kept = lab.recorded(key)
    found = summarize(key, STUDIES[key], kept.configuration["seeds"], results_folder() / "ladder")
    assert json.loads(json.dumps(found)) == kept.results
