"""Folders of all kinds, of users and of this program, and all that writes a folder let loose there.

The working directory lies in the middle of the tree, as a user's does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from nanogpt2.data import corpus, transfer
from nanogpt2.data import tokenizer as tokenizer_room
from nanogpt2.data.download import download_bundle, download_dataset, unzip
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals.core.__main__ import check_out
from nanogpt2.files import MADE, atomic_directory, write_json
from nanogpt2.files import mark as mark_folder
from nanogpt2.folder import NAMES, claimed
from nanogpt2.reporting.report import write_report
from nanogpt2.speedrun import Speedrun
from nanogpt2.stamps import Stamps
from nanogpt2.training.ranks import ALONE
from tests.drills.fuzz_readers import STEPS, Act, begin_training, resolve
from tests.drills.tiny_run import TinyData

ODD = os.fsdecode(b"\xff caf\xe9")
PLACES = ("", "", "..", "out", "tokenizer", "data", "out/data", "out/tokenizer", ODD)
FILES = (
    *NAMES, *(f"{name}/mine.txt" for name in NAMES), *(MADE, "run.lock") * 4, "data/mine.csv",
    "thesis.txt", "data", "tokenizer", "tokenizer/notes.txt", "tokenizer/merges.tiktoken", "out",
    "link", "data/shard_00000.parquet", "shard_00000.parquet", "shard_06542.parquet", ".out.zip",
    "checkpoints/step_000100/mine.txt", "checkpoints/step_000001.damaged/mine.txt", f"{ODD}.txt",
    "checkpoints/step_000002/COMPLETE", "checkpoints/notes.partial/mine.txt",
)  # fmt: skip
TARGETS = (
    ".", "..", "", "out", "out", "out", "tokenizer", "data", "out/tokenizer", "out/data", "data/..",
    "new", "new/deep/er", "link", "link/new", "thesis.txt", "thesis.txt/new", "core.json", ODD,
    "x" * 300, "new/..",
)  # fmt: skip
RESULT = b'{"label": "CORE", "core": 0.1, "protocol": "nanochat", "tasks": {}}'
CONTENTS = (b"years of work", b"", b"{}", b'{"files": ["thesis.txt"]}', b"[1]", RESULT)
WORKS = [[f"a text of its own, number {i}, part {part}" for part in range(3)] for i in range(30)]
NOBODY = "http://127.0.0.1:9"
"""where no server listens"""


# What may lie there


def _file(seeds: Path, place: Path, g: random.Random) -> None:
    path = place / g.choice(FILES)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.write_bytes(g.choice(CONTENTS))


def _empty_folder(seeds: Path, place: Path, g: random.Random) -> None:
    (place / g.choice(("out", "tokenizer", "data", "checkpoints", "stages", ODD))).mkdir()


def _link(seeds: Path, place: Path, g: random.Random) -> None:
    name = g.choice(("link", "link", "out", "data", "core.json", "run.lock", *FILES))
    to = g.choice(("..", ".", "nowhere", "thesis.txt", "data", "../thesis.txt", "link", ODD))
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def _tokenizer(seeds: Path, place: Path, g: random.Random) -> None:
    shutil.copytree(seeds / "resume" / "tokenizer", place / "tokenizer", dirs_exist_ok=True)


def _shards(seeds: Path, place: Path, g: random.Random) -> None:
    shutil.copytree(seeds / "resume" / "data", place / "data", dirs_exist_ok=True)
    if g.random() < 0.5:
        mark_folder(place / "data", [path.name for path in (seeds / "resume" / "data").iterdir()])


def _run(seeds: Path, place: Path, g: random.Random) -> None:
    if g.random() < 0.7:
        shutil.copytree(seeds / "run", place, dirs_exist_ok=True)
    if g.random() < 0.7:
        mark_folder(place)
    for step in g.sample((1, 2, 100), g.randint(0, 2)):
        folder = place / "checkpoints" / f"step_{step:06d}{g.choice(('', '', '.damaged'))}"
        shutil.copytree(seeds / "resume" / "checkpoint", folder, dirs_exist_ok=True)
        if g.random() < 0.3:
            (folder / g.choice(("COMPLETE", "state.json", "model.safetensors"))).unlink()


THINGS = (_file, _file, _file, _file, _empty_folder, _link, _tokenizer, _shards, _run)


# What writes there


def _save(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    Tokenizer.load(seeds / "tokenizer").save(target, data)


def _train_tokenizer(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    data = g.choice((data, seeds / "resume" / "data"))
    options = ["--vocab-size", "266", "--max-chars", "2000"]
    tokenizer_room.main([f"--data={data}", f"--out={target}", *options])


def _atomic(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    with atomic_directory(target, data) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "made.txt").write_text("made")
        if g.random() < 0.3:
            raise UserError("the work failed")


def _claim(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    with claimed(target):
        if g.random() < 0.3:
            raise UserError("nothing begins")
        mark_folder(target)
        Stamps(target).write("data", [], [])


def _begin(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    own = [f"--data={data}"] if g.random() < 0.3 else []
    more = g.choice(([], [], ["--resume"]))
    recipe = [] if more else ["--recipe=laptop"]
    run, plan = resolve([*recipe, "--cpu-ranks=1", f"--out={target}", *own, *more])
    speedrun = Speedrun(run, plan, "command")
    speedrun.work.ranks = ALONE
    with claimed(run.out):
        speedrun.begin()
        speedrun.work.get_data()


def _train(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    place = TinyData(seeds / "resume" / "data", g.choice((seeds / "resume", target)) / "tokenizer")
    begin_training(place.settings(target, **STEPS, resume=g.random() < 0.7))


def _corpus(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    corpus.write_embedded_corpus(target)


def _unzip(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    unzip(seeds / "archive" / "a.zip", target, 100_000)


def _download(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    download_dataset("climbmix", target, 1, endpoint=NOBODY)


def _bundle(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    download_bundle(target, url=f"{NOBODY}/a.zip")


def _report(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    write_report(target)


def _core(seeds: Path, target: Path, data: Path, g: random.Random) -> None:
    check_out(target)
    write_json(target, json.loads(RESULT))


WRITERS: tuple[Callable[[Path, Path, Path, random.Random], None], ...] = (
    _save, _train_tokenizer, _atomic, _claim, _begin, _train, _corpus, _unzip, _download, _bundle,
    _report, _core,
)  # fmt: skip


def folders(seeds: Path, work: Path, generator: random.Random) -> Act:
    """A tree of up to five things, and a writer with a target and an input in it."""
    here = work / "users" / "someone" / "project" / "here"
    here.mkdir(parents=True)
    target, data = generator.choice(TARGETS), generator.choice(("data", *TARGETS))
    places = (*PLACES, target, target, target, data)
    for _ in range(generator.randint(0, 5)):
        place = here / generator.choice(places)
        with suppress(OSError):  # a name is taken by something of another kind
            place.mkdir(exist_ok=True)
            generator.choice(THINGS)(seeds, place, generator)
    out = (here / target).absolute() if generator.random() < 0.2 else Path(target)
    writer = generator.choice(WRITERS)

    def act() -> None:
        os.chdir(here)
        with (
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
            patch.object(corpus, "works", lambda: (WORKS, ["docstrings"])),
            patch.object(transfer, "ATTEMPTS", 1),
        ):
            writer(seeds, out, Path(data), generator)

    return act
