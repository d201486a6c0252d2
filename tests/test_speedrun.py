"""The speedrun as its users meet it: a tiny run, stopped, resumed, damaged, and misused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanogpt2.errors import run_command
from nanogpt2.speedrun import main
from nanogpt2.stages import PROMPTS

SENTENCES = (
    "The river runs by the old mill and the water turns its wheel.",
    "In the year of the great frost the people walked upon the ice.",
    "A letter came from the city, and nobody in the village could read it.",
)
STEPS = 8


def write_documents(folder: Path, column: str = "text") -> Path:
    """Three small shards of repetitive English, each document a little different."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(3):
        texts = [
            f"{number}. " + " ".join(SENTENCES[(number + k) % 3] for k in range(1 + number % 4))
            for number in range(shard * 60, shard * 60 + 60)
        ]
        table = pa.table({column: texts})
        pq.write_table(table, folder / f"shard_{shard:05d}.parquet", row_group_size=10)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return write_documents(tmp_path_factory.mktemp("documents"))


def command(documents: Path, out: Path, *more: str) -> list[str]:
    settings = {
        "steps": STEPS,
        "sequence_len": 32,
        "vocab_size": 320,
        "batch_tokens": 256,
        "device_batch_size": 4,
        "aspect": 32,
        "head_dim": 32,
        "compile": "off",
        "precision": "fp32",
        "checkpoint_every": 2,
        "eval_every": 4,
    }
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    run = ["--recipe", "laptop", "--depth", "2", "--device", "cpu", "--data", str(documents)]
    return [*run, *pairs, "--out", str(out), *more]


def exit_code(arguments: list[str]) -> int:
    """The code that the command would exit with."""
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main(arguments))
    return ended.value.code


def losses(out: Path) -> dict[int, float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines)}


def results(out: Path) -> dict:
    """What a run arrived at, without its times."""
    evaluation = json.loads((out / "evaluation.json").read_text())
    samples = json.loads((out / "samples.json").read_text())
    return {"losses": losses(out), "evaluation": evaluation, "samples": samples}


def sizes(out: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(out)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def whole(documents, tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(documents, out)) == 0
    return out


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_run_leaves_everything_it_promises(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "config.json", "tokenizer", "checkpoints", "metrics.jsonl", "training.json",
        "evaluation.json", "samples.json", "report.html", "report.md",
    }  # fmt: skip
    assert list(losses(whole)) == list(range(1, STEPS + 1))
    found = results(whole)
    assert 0 < found["evaluation"]["val_bpb"] < 8
    assert [sample["prompt"] for sample in found["samples"]] == list(PROMPTS)
    report = (whole / "report.html").read_text()
    assert f"{found['evaluation']['val_bpb']:.4f}" in report and "bits per byte" in report
    assert not [path for path in whole.rglob("*") if path.name.endswith(".partial")]


def test_a_second_call_does_nothing(copied, documents, capsys):
    before = sizes(copied)
    assert main(command(documents, copied)) == 0
    told = capsys.readouterr()
    assert told.err.count("is done") == 6
    assert told.out.strip() == str(copied / "report.html")
    assert sizes(copied) == before


@pytest.mark.parametrize("name", ["evaluation.json", "samples.json", "report.html"])
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_result_is_made_again(copied, documents, name, damage):
    path = copied / name
    text = path.read_text()
    path.write_text(text[: len(text) // 2]) if damage == "truncate" else path.unlink()
    assert main(command(documents, copied)) == 0
    assert path.read_text() == text


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_record_of_the_settings_is_deleted_and_made_again(
    copied, documents, damage, capsys
):
    path, before = copied / "config.json", losses(copied)
    identity = json.loads(path.read_text())["identity"]
    if damage == "truncate":
        path.write_text(path.read_text()[:99])
        assert exit_code(command(documents, copied)) == 2
        assert "delete it to have it made again" in capsys.readouterr().err
    path.unlink()
    assert main(command(documents, copied)) == 0
    assert json.loads(path.read_text())["identity"] == identity
    assert losses(copied) == before


def test_other_settings_do_not_overwrite_a_run(copied, documents, capsys):
    before = sizes(copied)
    assert exit_code(command(documents, copied, "--seed", "1")) == 2
    assert "holds another run (seed is 0 there and 1 here)" in capsys.readouterr().err
    assert exit_code(command(documents, copied, "--set", "muon.lr=0.02001")) == 2
    assert "recipe.muon.lr is 0.02 there and 0.02001 here" in capsys.readouterr().err
    assert sizes(copied) == before


def interrupt(*_, **__):
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def after(original, disturbance=interrupt):
    """``original``, and then the disturbance."""

    def both(*arguments, **named):
        result = original(*arguments, **named)
        disturbance()
        return result

    return both


STOPS = {
    "machine": "nanogpt2.speedrun.describe_machine",
    "data": "nanogpt2.data.shards.open_shard",
    "tokenizer": "nanogpt2.data.tokenizer.read_documents",
    "merges": "nanogpt2.data.tokenizer.Tokenizer.save",
    "train": "nanogpt2.stages.progress_text",
    "evaluate": "nanogpt2.evals.bits_per_byte.bits_per_byte",
    "sample": "nanogpt2.inference.engine.load_engine",
    "report": "nanogpt2.reporting.report.load_run",
}
"""where Ctrl-C comes, in each stage"""


@pytest.mark.parametrize("place", STOPS)
def test_ctrl_c_in_any_stage_loses_nothing(place, whole, documents, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(STOPS[place], after(resolve_name(STOPS[place])))
        assert exit_code(command(documents, out)) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not [path for path in out.rglob("*") if path.name.endswith(".partial")]
    assert main(command(documents, out)) == 0
    assert results(out) == results(whole)


def test_a_resumed_run_needs_no_settings(documents, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        from nanogpt2 import stages

        patched.setattr("nanogpt2.stages.progress_text", after(stages.progress_text))
        assert exit_code(command(documents, out)) == 130
    assert 0 < len(losses(out)) < STEPS
    assert main(["--device", "cpu", "--resume", "--out", str(out)]) == 0
    assert results(out) == results(whole)


def test_a_time_limit_ends_with_a_report_and_the_run_can_go_on(documents, whole, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(documents, out, "--set", "max_seconds=1e-9")) == 0
    assert (out / "report.html").is_file() and len(losses(out)) < STEPS
    assert "and a larger max_seconds continues" in capsys.readouterr().err
    report = (out / "report.md").read_text()
    assert re.search(rf"\| steps \| {len(losses(out))} of ", report), "those that were done"
    assert main(command(documents, out)) == 0
    assert results(out) == results(whole)


@pytest.fixture
def half_a_second_a_step(monkeypatch):
    """By a clock of our own."""
    ticks = count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 2)
    monkeypatch.setattr("nanogpt2.training.trainer.time", clock)


def test_minutes_set_the_length_once(documents, tmp_path, monkeypatch, half_a_second_a_step):
    from nanogpt2 import stages

    def timed(out, *more):
        return command(documents, out, "--set", "eval_every=0", "--set", "steps=60", *more)

    once, out = tmp_path / "once", tmp_path / "run"
    assert main(timed(once, "--minutes", "0.5")) == 0
    chosen = json.loads((once / "length.json").read_text())["length"]
    assert len(losses(once)) == chosen["steps"] == 53  # of 27 s; the one measurement takes some
    assert chosen["asked"] == 60 and chosen["step_seconds"] == 0.5
    report = (once / "report.md").read_text()
    assert "| the recipe's steps | 60 |" in report and "| steps chosen | 53 |" in report
    assert chosen["why"] in report and "| steps | 53 of 256 tokens |" in report
    told, shown = iter(range(99)), stages.progress_text
    with monkeypatch.context() as patched:  # killed in the measured steps, and when it is set
        late = lambda: interrupt() if next(told) in (5, 40) else None  # noqa: E731
        patched.setattr("nanogpt2.stages.progress_text", after(shown, late))
        assert exit_code(timed(out, "--minutes", "0.5")) == 130
        assert not (out / "length.json").exists()
        assert exit_code(["--device", "cpu", "--resume", "--out", str(out)]) == 130
    steps = json.loads((out / "length.json").read_text())["length"]["steps"]
    assert main(["--device", "cpu", "--resume", "--out", str(out)]) == 0
    assert len(losses(out)) == steps


def test_other_minutes_are_another_run(documents, tmp_path, capsys, half_a_second_a_step):
    def timed(*more):
        return command(documents, tmp_path / "run", "--set", "steps=60", *more)

    assert exit_code(timed("--minutes", "0.1")) == 2
    assert "0.1 minutes are too few" in capsys.readouterr().err.splitlines()[-1]
    assert main(timed("--minutes", "0.5")) == 0, "nothing was learned: others may be given"
    assert exit_code(timed("--minutes", "1")) == 2
    assert "minutes is 0.5 there and 1.0 here" in capsys.readouterr().err
    assert exit_code(timed()) == 2
    assert "minutes is 0.5 there and None here" in capsys.readouterr().err


def spoil_truncate(folder: Path) -> None:
    shard = folder / "shard_00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])


def spoil_empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def spoil_noise(folder: Path) -> None:
    (folder / "shard_00000.parquet").write_bytes(b"no parquet at all")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_empty, "there are no documents in"),
        (spoil_truncate, "is not a readable parquet file"),
        (spoil_noise, "is not a readable parquet file"),
    ],
)
def test_bad_data_is_one_sentence(spoil, expected, tmp_path, capsys):
    folder = write_documents(tmp_path / "documents")
    spoil(folder)
    assert exit_code(command(folder, tmp_path / "run")) == 2
    sentence = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(sentence) == 1 and expected in sentence[0]
    assert not (tmp_path / "run" / "tokenizer").exists()


def test_files_named_validation_are_held_out_and_belong_to_the_run(tmp_path, capsys):
    flat, folder = write_documents(tmp_path / "flat"), tmp_path / "documents"
    for shard, name in enumerate(("train/a.parquet", "train/b.parquet", "val/a.parquet")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / f"shard_{shard:05d}.parquet", folder / name)
    run = command(folder, tmp_path / "run")
    assert main(run) == 0
    sentence = "2 files to train on; held out: val/a.parquet (named as validation)"
    assert sentence in " ".join(capsys.readouterr().err.split())
    main([*run, "--dry-run"])
    assert "get the data (is done)" in capsys.readouterr().out
    pq.write_table(pa.table({"text": SENTENCES}), folder / "val" / "a.parquet")
    main([*run, "--dry-run"])
    assert "get the data (is done)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("vocab_size=100", "a vocabulary of 100 is too small"),
        ("vocab_size=9000", "too short for 9000 tokens"),
        ("batch_tokens=100", "batch"),
    ],
)
def test_sizes_that_cannot_be(setting, expected, documents, tmp_path, capsys):
    assert exit_code(command(documents, tmp_path / "run", "--set", setting)) == 2
    told = capsys.readouterr().err
    assert expected in told.splitlines()[-1] and "Traceback" not in told


def test_attention_that_cannot_serve_ends_the_run_before_anything_is_made(
    documents, tmp_path, capsys
):
    asked = command(documents, tmp_path / "run", "--set", "attention_backend=fa3")
    assert exit_code(asked) == 2
    told = capsys.readouterr().err.splitlines()
    assert "attention backend 'fa3' cannot run here" in told[-1]
    assert not any("get the data" in line for line in told) and not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(copied, documents, tmp_path, capsys):
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    shutil.copytree(copied / "tokenizer", other / "tokenizer")
    for step in (copied / "checkpoints").iterdir():
        if step.is_dir():
            shutil.copytree(step, other / "checkpoints" / step.name)
    assert exit_code(command(documents, other, "--set", "rope_base=500")) == 2
    assert "rope_base" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_is_said_before_the_work(documents, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("nanogpt2.files.shutil.disk_usage", lambda path: usage)
    assert exit_code(command(documents, tmp_path / "run")) == 2
    assert "free some space" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_disk_that_fills_up_leaves_nothing_half_written(documents, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "run" / "config.json"))

    monkeypatch.setattr("nanogpt2.files.os.replace", full)
    assert exit_code(command(documents, tmp_path / "run")) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_may_not_be_written_to(documents, tmp_path, monkeypatch, capsys):
    def refused(self, *_, **__):  # by hand: root may write anywhere
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    assert exit_code(command(documents, tmp_path / "run")) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == (
        f"error: {tmp_path / 'run'}: no permission; choose a folder you may write to, "
        "or change its permissions"
    )


def test_a_folder_inside_a_file(documents, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert exit_code(command(documents, tmp_path / "file" / "run")) == 2
    assert "cannot be made (Not a directory)" in capsys.readouterr().err


def test_two_speedruns_do_not_share_a_folder(documents, tmp_path, capsys):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "run.lock"):
        assert exit_code(command(documents, tmp_path / "run")) == 2
    assert "another run is at work" in capsys.readouterr().err
