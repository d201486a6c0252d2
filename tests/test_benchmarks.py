"""Benchmarks by their commands, at sizes that take seconds: they run, and write what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> str:
    """stdout of ``python -m COMMAND``; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_data_packs_as_its_definition_does_and_says_how_fast(tmp_path: Path) -> None:
    """The command fails where the packer's rows differ from those of the scan."""
    path = tmp_path / "rows.json"
    run("benchmarks.data", "--megabytes", "0.2", "--json", str(path))
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    assert {row["unit"] for row in rows} == {"MB/s", "tokens/s", "bytes", "x", "%", "ms"}
    assert all(row["value"] > 0 for row in rows)
    assert all(row["value"] < 100 for row in rows if row["unit"] == "%")


def test_saving_says_what_a_checkpoint_takes(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    run("benchmarks.saving", "--depth", "1", "--folder", str(tmp_path), "--json", str(path))
    rows = json.loads(path.read_text())["rows"]
    waits, whole = (rows[i]["value"] for i in (2, 3))
    assert 0 < waits < whole < rows[-1]["value"], "a deeper model takes longer"
    assert sorted(tmp_path.iterdir()) == [path]


def test_decode_knows_the_size_of_its_cache() -> None:
    sizes = ["--depth", "2", "--recipe", "laptop", "--prompt-tokens", "40", "--new-tokens", "3"]
    rows = json.loads(run("benchmarks.decode", *sizes, "--batches", "1", "2", "--json"))
    assert all(set(row) == {"part", "what", "value", "unit"} for row in rows)
    assert {row["unit"] for row in rows} == {"tokens/s", "x", "MiB"}
    assert all(row["value"] > 0 for row in rows)
    held, full = (row["value"] for row in rows[-2:])
    # depth 2 has one short window (128 of 256 keys) and a full one
    assert held / full == (129 + 256) / (2 * 256)


STAND_IN = """
import sys
from benchmarks import gpu
from benchmarks.gpu_parts import Part, Stage
from nanogpt2.errors import UserError
from pathlib import Path

stage = Stage("drawn", "a stand-in", {name: Part("none") for name in "abc"})
place = gpu.Place("cuda", "NVIDIA H100 80GB HBM3", False, None, None, Path(sys.argv[1]))

def body(place, stage, part, seconds):
    assert 0 < seconds <= gpu.STAGE_SECONDS
    if part in sys.argv[3]:
        raise KeyboardInterrupt
    if part in sys.argv[4]:
        raise UserError("it did not end within 480 s")
    print("ran", part)
    return [{"part": stage, "what": part, "value": 1.0, "unit": "s"}]

gpu.run_stage(stage, place, again=sys.argv[2] == "again", run=body)
"""


def test_stages_go_on_where_they_were_stopped_and_record_what_they_found(tmp_path: Path) -> None:
    def ran(again: str = "", stop: str = "-", fail: str = "-") -> list[str]:
        words = [sys.executable, "-c", STAND_IN, str(tmp_path), again, stop, fail]
        told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert bool(told.returncode) == (stop != "-"), told.stderr
        lines = told.stdout.splitlines()
        return [line.removeprefix("ran ") for line in lines if line.startswith("ran ")]

    assert ran(stop="b") == ["a"]
    (path,) = tmp_path.iterdir()
    assert path.name == "benchmarks-h100-drawn.json"
    assert json.loads(path.read_text())["results"]["done"] == ["a"]
    assert ran(fail="b") == ["c"], "a is known"
    record = json.loads(path.read_text())
    assert record["device"] == "NVIDIA H100 80GB HBM3"
    assert record["results"]["failed"] == {"b": "it did not end within 480 s"}
    assert [row["what"] for row in record["results"]["rows"]] == ["a", "c"]
    assert ran() == ["b"] and not json.loads(path.read_text())["results"]["failed"]
    assert ran() == [] and ran(again="again") == ["a", "b", "c"]
    path.write_text(path.read_text().replace("H100", "H200"))
    assert ran() == ["a", "b", "c"], "edited by hand, or of another GPU"


def test_the_plan_names_every_stage_in_order_and_no_gpu_is_said_in_a_sentence() -> None:
    lines = run("benchmarks.gpu", "--plan").splitlines()
    names = [line.split()[1] for line in lines[::2]]
    assert names[:3] == ["tests", "step", "run"] and len(names) == len(set(names))
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "step"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert told.returncode == 2 and told.stderr.count("\n") == 1
    assert "there is no GPU here" in told.stderr


def test_a_part_of_a_rehearsal_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rehearsal = ("--device", "cpu", "--small", "--one", "variants", "AdamW for the matrices")
    run("benchmarks.gpu", *rehearsal, str(path))
    rows = json.loads(path.read_text())
    assert any("matrices=adamw: step" in row["what"] and row["value"] > 0 for row in rows)


TINY = """
import sys
from pathlib import Path
from benchmarks.planner import measure

asked = {"tiny": "depth=2 sequence_len=64 vocab_size=512 batch_tokens=256 device_batch_size=4"}
measure(asked, Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_the_planner_is_held_against_a_run(tmp_path: Path) -> None:
    """What it plans for a processor is near what the kernel counts; what is recorded stays."""
    work, folder = tmp_path / "work", tmp_path / "results"
    work.mkdir()
    words = [sys.executable, "-c", TINY, str(work), str(folder)]
    folder.mkdir()
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout.startswith("1/1 tiny"), told.stderr
    record = folder / "benchmarks-planner.json"
    before = record.read_bytes()
    found = json.loads(before)["results"]["runs"]["tiny"]
    assert 0.75 < found["GB planned"] / found["GB measured"] < 4 / 3
    assert found["s planned"] > 0 and found["s measured"] > 0
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0 and not told.stdout and record.read_bytes() == before
