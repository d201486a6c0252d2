"""Silly values, as a new user may give them: one sentence, exit code 2, and nothing written."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from nanogpt2.data.shards import write_shard
from nanogpt2.errors import run_command

TRAINER = ("nanogpt2.training.command", "--data", "DIR", "--tokenizer", "DIR")
TOKENIZER = ("nanogpt2.data.tokenizer", "--data", "DOCUMENTS", "--vocab-size", "300")
SPEEDRUN = ("nanogpt2.speedrun", "--recipe", "laptop", "--out", "NEW")
MISTAKES = {
    "a trainer into a file": ((*TRAINER, "--out", "FILE"), "FILE is a file; name a folder"),
    "a trainer below a file": ((*TRAINER, "--out", "FILE/run"), "cannot be written (Not a dir"),
    "a tokenizer into a file": ((*TOKENIZER, "--out", "FILE"), "FILE is a file; name a folder"),
    "a tokenizer below a file": ((*TOKENIZER, "--out", "FILE/a"), "cannot be written (Not a dir"),
    "a tokenizer without end": (
        (*TOKENIZER, "--out", "NEW", "--vocab-size", "99999999999999999999"),
        "a vocabulary of 99999999999999999999 is too large; give less than 2147483648",
    ),
    "memory that is no number": (("nanogpt2.planning", "--memory", "nan"), "--memory is nan"),
    "memory without end": (("nanogpt2.planning", "--memory", "1e300"), "--memory is 1e+300"),
    "a price that is no number": (
        ("nanogpt2.planning", "--dollars-per-hour", "nan"),
        "the price is nan dollars an hour; give 0 or more",
    ),
    "a device beside ranks on the processor": (
        (*SPEEDRUN, "--cpu-ranks", "2", "--device", "banana"),
        "--cpu-ranks runs on the processor; leave out --device banana",
    ),
    "no examples of CORE": (
        (*SPEEDRUN, "--core-max-per-task", "0"),
        "--core-max-per-task is 0; it must be at least 1",
    ),
    "a negative price": (
        ("nanogpt2.planning", "--dollars-per-hour", "-1"),
        "the price is -1.0 dollars an hour; give 0 or more",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_is_one_sentence(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nanogpt2.data.tokenizer.text_sample", lambda *_: iter(["a text"]))
    for name in ("a", "b"):
        write_shard(tmp_path / "DOCUMENTS" / f"{name}.parquet", ["a text"])
    (module, *words), sentence = MISTAKES[case]
    (tmp_path / "FILE").touch()
    (tmp_path / "DIR").mkdir()
    names = ("FILE", "DIR", "NEW", "DOCUMENTS")
    arguments = [str(tmp_path / word) if Path(word).parts[0] in names else word for word in words]
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: import_module(module).main(arguments))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"FILE", "DIR", "DOCUMENTS"}


@pytest.mark.parametrize("name", ["fineweb-edu", "core"])
def test_a_download_into_a_file_asks_no_server(name, tmp_path, capsys, monkeypatch):
    from nanogpt2.data import download

    for function in ("download_bundle", "download_dataset"):
        monkeypatch.setattr(download, function, lambda *_: pytest.fail("a server was asked"))
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["download", name, "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit) as stopped:
        run_command(download.main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("file is a file; name a folder\n")


def test_a_download_prints_its_folder_and_nothing_else(tmp_path, capsys, monkeypatch):
    from nanogpt2.data import download

    monkeypatch.setattr(download, "download_bundle", lambda folder, told: folder / "inside")
    monkeypatch.setattr("sys.argv", ["download", "core", "--out", str(tmp_path)])
    download.main()
    assert capsys.readouterr().out == f"{tmp_path / 'inside'}\n"
