from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanogpt2 import lab
from nanogpt2.errors import UserError

RUN: dict[str, Any] = {
    "command": "python -m nanogpt2.speedrun",
    "configuration": {"depth": 4, "rates": [0.1, 0.2]},
    "seed": 3,
    "tokens": 4096,
    "seconds": 1.25,
    "curve": [{"step": 0, "bpb": 3.0}, {"step": 1, "bpb": 2.5}],
    "results": {"bpb": 2.5},
}


def test_a_record_comes_back_whole_with_its_provenance(tmp_path: Path) -> None:
    lab.record("run-a", **RUN, folder=tmp_path)
    run = lab.recorded("run-a", tmp_path)
    for name, value in RUN.items():
        assert getattr(run, name) == value
    assert run.commit and run.device and run.torch and len(run.configuration_hash) == 64


@pytest.mark.parametrize("change", [("results", {"bpb": 2.4}), ("seconds", 1.0), ("note", "x")])
def test_an_edited_record_is_refused(tmp_path: Path, change: tuple[str, Any]) -> None:
    path = lab.record("run-a", **RUN, folder=tmp_path)
    body = json.loads(path.read_text())
    body[change[0]] = change[1]
    path.write_text(json.dumps(body))
    with pytest.raises(UserError, match="not what was recorded"):
        lab.recorded("run-a", tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"', "null"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run-a.json").write_text(text)
    with pytest.raises(UserError):
        lab.recorded("run-a", tmp_path)


def test_missing_records_and_bad_values_have_their_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        lab.recorded("nothing", tmp_path)
    with pytest.raises(UserError, match="no name"):
        lab.record("../escape", **RUN, folder=tmp_path)
    with pytest.raises(UserError, match="as JSON"):
        lab.record("nan", **{**RUN, "seconds": float("nan")}, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_committed_records_are_as_they_were_recorded() -> None:
    folder = Path(__file__).parents[2] / "book" / "results"
    for path in sorted(folder.glob("*.json")):
        if "configuration_hash" in json.loads(path.read_text()):
            assert lab.recorded(path.stem, folder).name == path.stem


def test_a_claim_wears_its_badge(tmp_path: Path) -> None:
    lab.record("run-a", **RUN, folder=tmp_path)
    run = lab.recorded("run-a", tmp_path)
    live = lab.claim("tokens a second", 12345.6, unit="tokens/s")
    assert live.text == "tokens a second: 12,346 tokens/s [live: computed by this page]"
    kept = lab.claim("bits per byte", run.results["bpb"], "recorded", run, form=".4f")
    assert "2.5000" in kept.html and "run-a.json" in kept.html and "ng-recorded" in kept.html
    told = lab.claim("CORE", 0.2585, "reported", "Karpathy 2026")
    assert "Karpathy 2026" in told.html


@pytest.mark.parametrize(
    "badge, source", [("recorded", None), ("recorded", "a file"), ("reported", None), ("seen", "x")]
)
def test_a_claim_without_its_source_is_refused(badge: Any, source: Any) -> None:
    with pytest.raises(UserError):
        lab.claim("x", 1.0, badge, source)


def test_a_table_is_even_and_badged() -> None:
    html = lab.table(["name", "size"], [["a", 1000], ["b", 0.12345]], caption="Sizes").html
    assert "1,000" in html and "0.123" in html and "ng-live" in html
    with pytest.raises(UserError, match="2 headers"):
        lab.table(["name", "size"], [["a"]])


def test_tables_read_sentences_from_the_left_and_break_long_labels() -> None:
    rows = [["a_long_label", "3.5", "a sentence of some length"]]
    html = lab.table(["what", "size", "why"], rows).html
    assert "a_<wbr>long_<wbr>label" in html
    assert '<td class="ng-words">a sentence' in html and "<td>3.5</td>" in html
