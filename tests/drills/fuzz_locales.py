"""Commands that print odd names and texts to terminals of every encoding and width."""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from nanogpt2.data import tokenizer as tokenizer_room
from nanogpt2.data.shards import find_shards
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.core.__main__ import main as core
from nanogpt2.inference import engine
from nanogpt2.reporting import report
from nanogpt2.reporting.console import Screen
from nanogpt2.speedrun import main as speedrun
from tests.drills.fuzz_readers import Act

ENCODINGS = (
    "ascii", "cp1252", "latin-1", "utf-16", "utf-8", "cp437", "shift_jis", "koi8-r", "gb18030",
)  # fmt: skip
PIECES = (
    "thesis", "na\u00efve", "\u6771\u4eac", "\U0001f642", os.fsdecode(b"\xe9"),
    os.fsdecode(b"\xff\xfe"), "\x1b[31m", "\n", "\t", " ", "[bold]", "[/x]", "\u202e", "\x07", "%s",
    "{0}", "\\", "'", "e\u0301", "\u200b", "\u2028", "=", "#",
)  # fmt: skip
"""what an argument or the name of a file can hold"""
ODDER = (*PIECES, "\ud800", "\udfff", "\x00")
"""what a text that was read can hold"""


class Terminal(io.TextIOWrapper):
    """A stream of some encoding that keeps the bytes; it may say that a person sits there."""

    def __init__(self, encoding: str, person: bool, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding, "strict", newline="\n")
        self.person = person

    def isatty(self) -> bool:
        return self.person

    def shown(self) -> str:
        """All that was printed; UnicodeDecodeError where it is not of the encoding."""
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


def _text(g: random.Random, pieces: tuple[str, ...] = PIECES) -> str:
    return "".join(g.choices(pieces, k=g.randint(1, 6)))


def _name(g: random.Random) -> str:
    """Of a file."""
    return _text(g).replace("/", ":")


# What prints; each gives a command's ``main``


def _dry_run(seeds: Path, work: Path, g: random.Random) -> Act:
    arguments = ["--dry-run", "--recipe=laptop", "--cpu-ranks=1", f"--out={_text(g)}"]
    return lambda: speedrun(arguments)


def _refusal(seeds: Path, work: Path, g: random.Random) -> Act:
    option = g.choice(("--data", "--set", "--recipe", "--device", "--log", "--depth", "--huh"))
    return lambda: speedrun(["--dry-run", f"{option}={_text(g)}"])


def _tokenizer(seeds: Path, work: Path, g: random.Random) -> Act:
    data = work / _name(g)
    if g.random() < 0.8:
        shutil.copytree(seeds / "resume" / "data", data)
    arguments = [f"--data={data}", f"--out={work / _name(g)}", "--vocab-size=266"]
    return lambda: tokenizer_room.main([*arguments, "--max-chars=2000"])


def _checkpoint(seeds: Path, work: Path, g: random.Random) -> list[str]:
    folder = work / _name(g)
    shutil.copytree(seeds / "resume" / "checkpoint", folder)
    return [f"--checkpoint={folder}", f"--tokenizer={seeds / 'resume' / 'tokenizer'}"]


def _prompts(seeds: Path, work: Path, g: random.Random) -> Act:
    arguments = _checkpoint(seeds, work, g)
    prompts = [f"--prompt={_text(g)}" for _ in range(g.randint(0, 2))]  # 0: a conversation
    more = ["--max-new-tokens=3", "--device=cpu", f"--dtype={g.choice(('auto', 'float32'))}"]
    return lambda: engine.main([*arguments, *prompts, *more])


def _core(seeds: Path, work: Path, g: random.Random) -> Act:
    arguments = [*_checkpoint(seeds, work, g), f"--bundle={seeds / 'bundle'}", "--device=cpu"]
    more = g.choice(([], [f"--out={work / _name(g)}"], [f"--tasks={_text(g)}"]))
    return lambda: core([*arguments, *more])


def _report(seeds: Path, work: Path, g: random.Random) -> Act:
    folder = work / _name(g)
    if g.random() < 0.8:
        shutil.copytree(seeds / "run", folder)
    return lambda: report.main([str(folder)])


def _shards(seeds: Path, work: Path, g: random.Random) -> Act:
    folder = work / _name(g)
    folder.mkdir()
    for _ in range(g.randint(0, 5)):
        (folder / f"{_name(g)}{g.choice(('.parquet', ''))}").touch()
    return lambda: print(find_shards(folder).describe())


def _screen(seeds: Path, work: Path, g: random.Random) -> Act:
    def show() -> None:
        screen = Screen()
        screen.stage(1, 2, _text(g, ODDER), _text(g, ODDER))
        screen.say(_text(g, ODDER))
        with screen.progress() as advance:
            for done in range(3):
                advance(done, 2, _text(g, ODDER))

    return show


COMMANDS: tuple[Callable[[Path, Path, random.Random], Act], ...] = (
    _dry_run, _refusal, _tokenizer, _prompts, _core, _report, _shards, _screen,
)  # fmt: skip


def locales(seeds: Path, work: Path, generator: random.Random) -> Act:
    """A command with odd arguments, in a terminal of some encoding and width."""
    g = generator
    command = g.choice(COMMANDS)(seeds, work, g)
    person, typed = g.random() < 0.5, "\n".join(_text(g) for _ in range(3)).encode(errors="ignore")
    streams = [Terminal(g.choice(ENCODINGS), person) for _ in range(2)]
    # no system types in UTF-16
    stdin = Terminal(g.choice(ENCODINGS).replace("utf-16", "utf-8"), False, typed + g.randbytes(3))
    width = str(g.choice((20, 40, 79, 80, 120)))

    def act() -> None:
        os.chdir(work)
        names = {"COLUMNS": width, "TERM": g.choice(("xterm", "dumb", "linux"))}
        with (
            patch.dict(os.environ, names),
            patch.object(sys, "stdout", streams[0]),
            patch.object(sys, "stderr", streams[1]),
            patch.object(sys, "stdin", stdin),
        ):
            try:
                run_command(command)
            except SystemExit as ended:
                code = ended.code
        said = [stream.shown() for stream in streams]
        assert "Traceback" not in said[1], said[1]
        if code:
            assert code == 2 and "error: " in said[1], (code, said)
            raise UserError(said[1])

    return act
