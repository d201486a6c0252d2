"""Text to and from terminals of any encoding and width, folders of any name, users without a home.

What a command leaves on the disk, and the code it ends with, depend on none of these.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from nanogpt2 import speedrun
from nanogpt2.data import tokenizer
from nanogpt2.errors import readable, run_command
from nanogpt2.evals.core import CoreEvaluator, TaskResult
from nanogpt2.evals.core import __main__ as core
from nanogpt2.evals.core.report import core_table
from nanogpt2.evals.core.results import CoreResult
from nanogpt2.files import cache_place, read_json, write_json
from nanogpt2.inference import engine
from nanogpt2.lab.small_data import cache_folder
from nanogpt2.reporting import report
from nanogpt2.reporting.console import Screen
from tests.drills.belongings import snapshot
from tests.evals.conftest import small_bundle  # noqa: F401 (a fixture)
from tests.test_speedrun import command, write_documents

ODD = os.fsdecode(b"caf\xe9")
"""a folder's name in Latin-1, which is no UTF-8"""
POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MADE = ("evaluation.json", "core.json", "samples.json", "tokenizer/tokenizer.json")
ENCODINGS = ("ascii", "cp1252", "utf-8")
CORE_OPTIONS = ("--tasks", "schema,words", "--max-per-task", "2", "--device", "cpu")


def ended(main: Callable[[], int | None]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    return stopped.value.code


class Terminal:
    """Strict streams of one encoding in place of the process's own."""

    def __init__(self, patch: pytest.MonkeyPatch, encoding: str, typed: bytes = b"") -> None:
        self.encoding = encoding
        for name, data in (("stdin", typed), ("stdout", b""), ("stderr", b"")):
            stream = io.TextIOWrapper(io.BytesIO(data), encoding=encoding, errors="strict")
            patch.setattr(sys, name, stream)

    def shown(self, name: str = "stdout") -> str:
        stream = getattr(sys, name)
        stream.flush()
        return stream.buffer.getvalue().decode(self.encoding)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / ODD
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only names in UTF-8")
    return folder


@pytest.fixture(scope="module")
def bundle(odd_folder: Path, small_bundle: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(small_bundle, odd_folder / "tasks"))


@pytest.fixture(scope="module")
def plain_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents"))


@pytest.fixture(scope="module")
def arguments(odd_folder: Path, bundle: Path, plain_documents: Path) -> list[str]:
    """A tiny speedrun with everything in the odd folder, without its ``--out``."""
    documents = odd_folder / "documents"
    shutil.copytree(plain_documents, documents)
    *options, out, _ = command(documents, Path())
    assert out == "--out"
    return [*options, "--core-bundle", str(bundle), "--core-max-per-task", "2"]


@pytest.fixture(scope="module")
def run(odd_folder: Path, arguments: list[str]) -> Path:
    """The speedrun of a terminal that knows ASCII alone."""
    out = odd_folder / "run"
    ran = subprocess.run(
        [sys.executable, "-m", "nanogpt2.speedrun", *arguments, "--out", str(out)],
        env={**os.environ, **POSIX},
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.decode("ascii").endswith("caf\\udce9/run/report.html\n")
    return out


def test_a_run_is_the_same_in_every_locale(run, arguments, odd_folder, monkeypatch):
    other = odd_folder / "other"
    terminal = Terminal(monkeypatch, "utf-8")
    assert ended(lambda: speedrun.main([*arguments, "--out", str(other)])) == 0
    assert terminal.shown().endswith("report.html\n")
    for name in MADE:
        assert (run / name).read_bytes() == (other / name).read_bytes()


def test_a_recorded_folder_is_found_again(run, odd_folder, monkeypatch):
    assert Path(read_json(run / "config.json")["data_dir"]) == (odd_folder / "documents").resolve()
    terminal = Terminal(monkeypatch, "ascii")
    code = ended(lambda: speedrun.main(["--resume", "--device", "cpu", "--out", str(run)]))
    assert code == 0, terminal.shown("stderr")
    assert "train the model is done" in terminal.shown("stderr")
    assert ended(lambda: report.main([str(run)])) == 0
    assert "caf\\udce9" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_tokenizer_of_an_odd_folder(run, odd_folder, encoding, tmp_path, monkeypatch):
    terminal, out = Terminal(monkeypatch, encoding), tmp_path / ODD
    options = ["--data", str(odd_folder / "documents"), "--vocab-size", "300", "--out", str(out)]
    assert ended(lambda: tokenizer.main(options)) == 0
    assert "300 tokens in" in terminal.shown() and (out / "tokenizer.json").is_file()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_prompts_of_any_bytes_are_continued(run, encoding, monkeypatch):
    options = ["--checkpoint", str(run), "--max-new-tokens", "3", "--temperature", "0"]
    terminal = Terminal(monkeypatch, encoding)
    given = ["--prompt", os.fsdecode(b"caf\xe9 \xc3\xa9 \xe2\x82\xac")]
    assert ended(lambda: engine.main([*options, *given])) == 0
    expected = "caf\ufffd é €".encode(encoding, "backslashreplace").decode(encoding)
    assert terminal.shown().startswith(expected)
    typed = Terminal(monkeypatch, encoding, b"caf\xe9\nand \xc3\xa9\x81\n")
    assert ended(lambda: engine.main(options)) == 0
    assert typed.shown().count("\n") >= 2 and typed.shown("stderr") == ""


@given(data=st.binary(max_size=40))
def test_what_an_ascii_locale_cannot_read_is_read_as_utf8(data):
    assert readable(data.decode("ascii", "surrogateescape")) == data.decode("utf-8", "replace")


@given(text=st.text())
def test_readable_text_has_no_lone_surrogates_and_others_stay(text):
    assert readable(text) == text
    readable(text + "\ud800\udfff").encode()


ODD_BYTES = st.integers(0xDC80, 0xDCFF).map(chr)


@given(text=st.text(st.one_of(st.characters(), ODD_BYTES)))
def test_json_keeps_the_bytes_of_names(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, {text: [text]})
    assert read_json(path) == json.loads(json.dumps({text: [text]}))
    path.read_bytes().decode("utf-8", "strict")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_core_shows_its_table_in_any_encoding(run, bundle, encoding, tmp_path, monkeypatch):
    terminal, out = Terminal(monkeypatch, encoding), tmp_path / ODD / "deep" / "core.json"
    options = ["--checkpoint", str(run), "--bundle", str(bundle), *CORE_OPTIONS]
    for _ in range(2):  # the second result takes the place of the first
        assert ended(lambda: core.main([*options, "--out", str(out)])) == 0
    assert list(read_json(out)["tasks"]) == ["schema", "words"]
    assert "standard error" in terminal.shown() and "schema" in terminal.shown()


def test_core_keeps_the_result_before_it_prints(run, bundle, tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    out = tmp_path / "core.json"
    with pytest.raises(OSError, match="No space left"):
        core.main(
            ["--checkpoint", str(run), "--bundle", str(bundle), *CORE_OPTIONS, "--out", str(out)]
        )
    assert read_json(out)["protocol"] == "nanochat"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "is a folder; name a file in it"),
        ("notes.txt", "exists and is no result of this command; move it away or name another"),
        ("list.json", "exists and is no result of this command; move it away or name another"),
        ("notes.txt/core.json", "cannot be written (Not a directory); name a place that"),
        ("link", "is a device, not a file; name a file"),
        ("new/..", "is a folder; name a file in it"),
        ("link to nothing", "is a link, which would be replaced; name the file itself"),
    ],
)
def test_core_refuses_a_bad_out_before_it_evaluates(
    run, bundle, tmp_path, monkeypatch, capsys, name, sentence
):
    monkeypatch.setattr(CoreEvaluator, "evaluate", lambda *_: pytest.fail("an hour is lost"))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "list.json").write_text('{"tasks": {}}')
    (tmp_path / "link").symlink_to(os.devnull)
    (tmp_path / "link to nothing").symlink_to("nowhere")
    before = snapshot(tmp_path)
    options = ["--checkpoint", str(run), "--bundle", str(bundle), "--out", str(tmp_path / name)]
    assert ended(lambda: core.main(options)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_standard_output_on_a_full_disk_is_said():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    order = [sys.executable, "-m", "nanogpt2.speedrun", "--device", "cpu", "--dry-run"]
    with open("/dev/full", "wb") as full:
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # refused at the end, not line by line
        ran = subprocess.run(order, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: the disk is full") and ran.stderr.count("\n") == 1


LABELS = ("copa", "bigbench_language_identification")


def table_at(width: int) -> list[str]:
    tasks = {label: TaskResult(0.25, 0.1, [True] * 1000) for label in LABELS}
    published = {size: dict.fromkeys(LABELS, 0.5) for size in ("124M", "1.5B")}
    console = Console(file=io.StringIO(), width=width)
    console.print(core_table(CoreResult(0.1, tasks), published, width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [30, 40, 57, 80, 130])
def test_a_table_fits_its_terminal_and_loses_no_name_or_figure(width):
    lines = table_at(width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text and text.count("0.2500") == 2 and text.count("+0.1000") == 3
    folded = "".join(line[:32].strip(" │┃") for line in lines if "0.2500" not in line)
    assert all(label in text or label[-6:] in folded for label in LABELS)
    assert ("GPT-2 1.5B" in text) == (width == 130)


@pytest.mark.parametrize("width", [30, 80, 120])
def test_progress_fits_its_terminal(width):
    screen, shown = Screen(), io.StringIO()
    screen.console = Console(file=shown, width=width, force_terminal=True)
    with screen.progress() as advance:
        advance(2, 4, "loss 3.1")
    text = Text.from_ansi(shown.getvalue()).plain
    assert ("50%" if width == 30 else "2/4 loss 3.1") in text
    assert "left" in text and "…" not in text


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An account without an entry in the list of users, in a folder of its own."""
    pwd = pytest.importorskip("pwd")

    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "NANOGPT2_LAB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_who_has_no_home_names_the_tasks(homeless, run, bundle, capsys):
    assert cache_place() is None
    options = ["--checkpoint", str(run), *CORE_OPTIONS]
    assert ended(lambda: core.main(options)) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: this user has no home folder to keep files in; give --bundle DIR, a folder that "
        "holds CORE's tasks\n"
    )
    assert ended(lambda: core.main([*options, "--bundle", str(bundle)])) == 0
    assert ended(lambda: speedrun.main(["--recipe", "run1", "--dry-run"])) == 0
    assert list(homeless.iterdir()) == []  # no folder called ~


def test_a_home_that_cannot_be_written_is_said(tmp_path, run, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    assert ended(lambda: core.main(["--checkpoint", str(run), *CORE_OPTIONS])) == 2
    error = capsys.readouterr().err
    assert "cannot be made (Not a directory); give --bundle DIR" in error and error.count("\n") == 1


def test_the_lab_without_a_home_names_its_variable(homeless, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # a checkout that may only be read
    assert ended(lambda: print(cache_folder())) == 2
    assert "set NANOGPT2_LAB_CACHE to a folder you may write to" in capsys.readouterr().err
