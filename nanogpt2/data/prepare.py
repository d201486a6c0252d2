"""Any text into shards to train on: ``python -m nanogpt2.data.prepare SOURCE... --out DIR``.

Two passes, with memory for some tens of millions of characters whatever the size. The first reads
and cleans the documents, and leaves them in parts, shuffled each; what it has seen stands in a
small database, so that a pass that was killed goes on after its last part. The second takes the
same share of every part for each shard and shuffles that. Chapter: tokens_and_rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pyarrow as pa

from nanogpt2.data.cleaning import HELD_OUT, MIN_CHARS, Progress, Rules, cleaned, count, is_held_out
from nanogpt2.data.documents import SEPARATOR, Source, documents, find_sources
from nanogpt2.data.shards import write_shard
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import (
    atomic_directory,
    atomic_write,
    has_utf8_name,
    made_here,
    mark,
    named_path,
    require_folder_place,
    require_free_space,
    require_replaceable,
    write_json,
)

PART = 16_000_000
"""characters that are held before they are written"""
SHARD = 64_000_000
"""characters of a shard"""
ROW_GROUPS = 64
"""of a shard, where it has so many documents: as many ranks can be dealt equally many"""
SEED = 1337
SAMPLES = 3
SUMMARY = "summary.json"


def prepare(
    sources: Sequence[Path | str] | Path,
    out: Path | str,
    rules: Rules | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Progress:
    """Make of ``sources`` a folder of shards, ``out``; returns what was kept and dropped.

    A ``Path`` is a file or a folder; a string is a document. A call that was killed goes on where
    it was; sources that have changed begin anew. ``told`` hears of bytes done and in all.

    Raises UserError for sources that hold no documents, a damaged file, or a folder that is not
    this program's to replace; nothing is left then.
    """
    rules, out = rules or Rules(), Path(out)
    places = [sources] if isinstance(sources, Path) else list(sources)
    inputs = [place for place in places if isinstance(place, Path)]
    require_replaceable(out, *inputs)
    for place in inputs:
        if out.resolve().is_relative_to(place.resolve()):
            raise UserError(f"{out} lies in {place}, which is read; name a folder outside of it")
    found, _ = find_sources(places)
    identity = identity_of(places, rules)
    if (done := _finished(out, identity)) is not None:
        return done
    size = sum(source.size for source in found if source.kind)
    require_free_space(out, 3 * size, "the text")
    work = _claimed(out.absolute().with_name(f".{out.name}.preparing"))
    try:
        with closing(_database(work, identity)) as database:
            progress = _clean(found, rules, work, database, told)
            _require_enough(progress)
            _write(work, progress, out, identity, inputs)
    except UserError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    except sqlite3.DatabaseError as error:  # how SQLite says that a disk is full
        if "locked" in str(error):
            raise UserError(f"another process is at work in {work}; wait for it") from None
        raise UserError(
            f"the notes of what was read in {work} cannot be kept ({error}); free some space and "
            "call again, or delete that folder to begin anew"
        ) from None
    shutil.rmtree(work)
    return progress


def _claimed(work: Path) -> Path:
    """The folder of what is half done, marked as this program's; UserError where it is not so."""
    if work.exists() and not made_here(work) and any(work.iterdir()):
        raise UserError(f"{work} is needed for what is half done; move it away")
    work.mkdir(parents=True, exist_ok=True)
    mark(work)
    return work


def identity_of(places: Iterable[Path | str], rules: Rules | None = None) -> str:
    """A digest that changes when a source does, or how it is cleaned."""
    found, _ = find_sources(places)
    values = [asdict(rules or Rules()), [source.identity() for source in found]]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _finished(out: Path, identity: str) -> Progress | None:
    """What an earlier call made of the same sources, if it is here."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        left = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        whole = all((out / name).stat().st_size == n for name, n in left["files"].items())
        if whole and left["identity"] == identity:
            return Progress(**left["progress"])
    return None


def _require_enough(progress: Progress) -> None:
    if progress.kept - progress.held_out and progress.held_out:
        return
    drops = ", ".join(f"{n} {why}" for why, n in progress.drops.items() if n)
    kept = f"{progress.read:,} documents were read and {progress.kept:,} kept"
    raise UserError(
        f"{kept}{f' ({drops})' if drops else ''}; at least 2 are needed, one to learn from and one "
        "to hold out: give more text, or a smaller --min-chars"
    )


# The first pass


def _clean(
    sources: Sequence[Source],
    rules: Rules,
    work: Path,
    database: sqlite3.Connection,
    told: Callable[[int, int], None],
) -> Progress:
    """Read everything that was not read yet; the parts are in ``work`` then."""
    (record,) = database.execute("SELECT record FROM progress").fetchone()
    progress = Progress(**json.loads(record))
    splits = {source.split for source in sources}
    sizes = [source.size for source in sources]
    total, before = sum(sizes), sum(sizes[: progress.source])
    pending: dict[str, list[str]] = {"train": [], "validation": []}
    held = 0

    def flush() -> None:
        nonlocal held
        for split, texts in pending.items():
            if texts:
                _write_part(work / f"{split}-{progress.parts:06d}.arrow", texts, progress.parts)
                texts.clear()
        progress.parts += 1
        held = 0
        record = json.dumps(asdict(progress))
        database.execute("UPDATE progress SET record = ?", (record,))
        database.commit()

    for source in sources[progress.source :]:
        found = documents(source, rules.column, rules.separator)
        for i, (raw, at) in islice(enumerate(found), progress.document, None):
            progress.document, progress.read = i + 1, progress.read + 1
            text, why = cleaned(raw, rules, progress)
            split = source.split
            if not why and split == "test" and "validation" in splits:
                why = "left-over test"  # first: what is not kept makes nothing else a duplicate
            if not why and not _is_new(text, database, progress):
                why = "duplicate"
            if why:
                progress.drops[why] += 1
            else:
                count(text, progress)
                if is_held_out(text, split, splits, progress, rules):
                    pending["validation"].append(text)
                    progress.held_out += 1
                    progress.held_out_characters += len(text)
                else:
                    pending["train"].append(text)
                held += len(text)
            if held >= PART:
                flush()
            if not i % 256:
                told(min(before + at, total), total)
        before += source.size
        progress.source, progress.document = progress.source + 1, 0
    if any(pending.values()):
        flush()
    told(total, total)
    return progress


def _database(work: Path, identity: str) -> sqlite3.Connection:
    """Digests of the documents seen, and the progress; those of other sources are cleared away."""
    path = work / "seen.sqlite"
    database = sqlite3.connect(path, timeout=0)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        database.execute("CREATE TABLE IF NOT EXISTS progress (identity TEXT, record TEXT)")
        known = database.execute("SELECT identity FROM progress").fetchone()
        if known != (identity,):
            for made in (*work.glob("*.arrow"), *work.glob("*.parquet")):  # of both passes
                made.unlink()
            database.execute("DELETE FROM seen")
            database.execute("DELETE FROM progress")
            record = json.dumps(asdict(Progress()))
            database.execute("INSERT INTO progress VALUES (?, ?)", (identity, record))
        database.commit()
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _is_new(text: str, database: sqlite3.Connection, progress: Progress) -> bool:
    digest = hashlib.sha256(text.encode()).digest()[:16]
    done = database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,))
    if not done.rowcount:
        return False
    shown = [digest.hex(), " ".join(text[:160].split())[:100]]
    progress.samples = sorted([*progress.samples, shown])[:SAMPLES]
    return True


def _write_part(path: Path, texts: list[str], number: int) -> None:
    """Documents, shuffled, to be mapped into memory."""
    random.Random(f"{SEED} {path.name} {number}").shuffle(texts)
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


# The second pass


def _write(
    work: Path, progress: Progress, out: Path, identity: str, inputs: Sequence[Path]
) -> None:
    """The shards of both splits, from the parts; those that are here already stay."""
    sizes = {
        "train": progress.characters - progress.held_out_characters,
        "validation": progress.held_out_characters,
    }
    for split, size in sizes.items():
        parts = sorted(work.glob(f"{split}-*.arrow"))
        shards = max(1, round(size / SHARD))
        for n in range(shards):
            made = work / f"{split}-{n:05d}-of-{shards:05d}.parquet"
            if not made.exists():
                texts = _shuffled(parts, n, shards)
                write_shard(made, texts, max(1, min(200, len(texts) // ROW_GROUPS)))
    with atomic_directory(out, *inputs) as temporary:
        for made in work.glob("*.parquet"):
            made.replace(temporary / made.name)
        files = {made.name: made.stat().st_size for made in temporary.iterdir()}
        record = {"progress": asdict(progress), "files": files, "identity": identity}
        write_json(temporary / SUMMARY, record)


def _shuffled(parts: Sequence[Path], number: int, shards: int) -> list[str]:
    """The documents of one shard: of every part the same share."""
    found: list[str] = []
    for path in parts:
        with pa.memory_map(str(path)) if has_utf8_name(path) else path.open("rb") as file:
            column = pa.ipc.open_file(file).read_all().column(0)
            first, end = (len(column) * k // shards for k in (number, number + 1))
            found += column.slice(first, end - first).to_pylist()
    random.Random(f"{SEED} {number}").shuffle(found)
    return found


# The command


def main(arguments: list[str] | None = None) -> None:
    """``python -m nanogpt2.data.prepare SOURCE... --out DIR``."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TimeRemainingColumn

    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.data.prepare",
        description="Make shards to train on of any text: folders and files of txt, md, jsonl, csv "
        "or parquet, compressed or not, or a Hugging Face data set's folder.",
    )
    add = parser.add_argument
    add("sources", nargs="+", type=named_path, metavar="SOURCE", help="a file, or a folder of them")
    add("--out", type=named_path, required=True, metavar="DIR", help="folder to make")
    add("--column", metavar="NAME", help="of tables (default: text, else the longest strings)")
    add("--min-chars", type=int, default=MIN_CHARS, metavar="N", help="drop shorter documents")
    add("--held-out", type=float, default=HELD_OUT, metavar="SHARE", help="to measure with")
    add("--encoding", default="cp1252", metavar="NAME", help="of what is not UTF-8")
    add("--separator", default=SEPARATOR, metavar="TEXT", help="between documents in a text file")
    options = parser.parse_args(arguments)
    require_folder_place(options.out, "--out")
    names = ("column", "min_chars", "held_out", "encoding", "separator")
    rules = Rules(**{name: getattr(options, name) for name in names})
    _, left = find_sources(options.sources)
    if left:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p.suffix for p in left).items())
        print(f"left alone, of other kinds: {kinds}", file=sys.stderr)
    columns = (*Bar.get_default_columns()[:3], TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=None)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        progress = prepare(options.sources, options.out, rules, told)
    print(*progress.describe(), options.out, sep="\n")


if __name__ == "__main__":
    run_command(main)
