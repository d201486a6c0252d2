"""Count the house: each room's lines against its budget, and the path that a student reads.

    python -m scripts.lines            print both tables
    python -m scripts.lines --readme   and write the rooms into README.md

A room's lines are those of its files. Of the path those count that hold something to read: code,
comments, docstrings.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import yaml

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_write
from scripts.paths import ROOT

PACKAGE = ROOT / "nanogpt2"
ROUND = 50
"""README names lines rounded to this, so that it need not change with every commit"""


@dataclass(frozen=True)
class Room:
    """Some files of the package that belong together."""

    name: str
    files: tuple[str, ...]
    """relative to the package; a folder ends with a slash"""
    holds: str
    """what lives there"""
    budget: int
    """lines"""

    def paths(self) -> list[Path]:
        """Every Python file of the room."""
        return [path for name in self.files for path in python_files(name)]

    @property
    def lines(self) -> int:
        """Of all its files."""
        return sum(map(count, self.paths()))


def python_files(name: str) -> list[Path]:
    """The file of that name in the package, or all files of the folder."""
    place = PACKAGE / name
    return sorted(place.rglob("*.py")) if name.endswith("/") else [place] if place.exists() else []


def count(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def count_to_read(path: Path) -> int:
    """Lines of a file that are not blank."""
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


def house() -> tuple[list[Room], list[str], int]:
    """The rooms in the order of their imports, the taught files, and the lines these may have."""
    table = yaml.safe_load((ROOT / "scripts" / "house.yml").read_text(encoding="utf-8"))
    rooms = [Room(r["name"], tuple(r["files"]), r["holds"], r["lines"]) for r in table["rooms"]]
    return rooms, table["taught"], table["taught_lines"]


def taught() -> dict[str, int]:
    """Lines to read of each taught file, and of each taught folder."""
    return {name: sum(map(count_to_read, python_files(name))) for name in house()[1]}


def room_table() -> str:
    """Markdown for README.md: every room, what lives there, and about how many lines it has."""
    rows = ["| room | what lives there | lines |", "| --- | --- | ---: |"]
    for room in house()[0]:
        names = " ".join(f"[`{name}`](nanogpt2/{name.rstrip('/')})" for name in room.files)
        rows.append(f"| {names} | {room.holds} | {about(room.lines)} |")
    return "\n".join(rows)


def book_tables() -> str:
    """Markdown for the book: every room and every taught file, with their lines as they are."""
    rows = ["| room | what lives there | lines |", "| --- | --- | ---: |"]
    rows += [f"| {room.name} | {room.holds} | {room.lines:,} |" for room in house()[0]]
    path = ["| what a chapter quotes | lines to read |", "| --- | ---: |"]
    path += [f"| `{name}` | {lines:,} |" for name, lines in taught().items()]
    return "\n".join([*rows, "", *path, f"| together | {sum(taught().values()):,} |"])


def about(lines: int) -> str:
    """1,250 for 1,234."""
    return f"{max(1, round(lines / ROUND)) * ROUND:,}"


def rewrite(readme: Path, name: str, text: str) -> None:
    """Put ``text`` between the markers of ``name``; UserError unless they are there once."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = readme.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise UserError(f"{readme} needs the lines {begin} and {end}, once each and in this order")
    before, rest = old.split(begin)
    after = rest.split(end)[1]
    with atomic_write(readme) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def readme_section() -> str:
    """What README.md says of the rooms."""
    whole, path = about(total()), about(sum(taught().values()))
    return (
        f"{room_table()}\n\nAbout {whole} lines in all. About {path} of them are what a "
        "student reads to know how the model is\ntrained: model, loss, packing, schedules, AdamW, "
        "Polar Express, Muon, the sharded step, the loop, and CORE."
    )


def total() -> int:
    """Lines of the whole package."""
    return sum(map(count, PACKAGE.rglob("*.py")))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.lines", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--readme", action="store_true", help="write the rooms into README.md")
    if parser.parse_args().readme:
        rewrite(ROOT / "README.md", "rooms", readme_section())
    rooms, _, most = house()
    for room in rooms:
        print(f"{room.name:<24}{room.lines:>7,} of {room.budget:>6,}")
    print(f"{'the whole package':<24}{total():>7,} of {sum(r.budget for r in rooms):>6,}\n")
    for name, lines in taught().items():
        print(f"{name:<24}{lines:>7,}")
    print(f"{'the taught path':<24}{sum(taught().values()):>7,} of {most:>6,}")
    return 0


if __name__ == "__main__":
    run_command(main)
