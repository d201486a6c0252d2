"""The package's modules, the chapters that explain them, and the API pages made from both."""

from __future__ import annotations

import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

import nanogpt2
from scripts.paths import BOOK, chapters

PREFIX = "nanogpt2."
# API page -> the rooms that it shows; "rest" has those that no other page names
PAGES: dict[str, tuple[str, ...]] = {
    "config": ("config", "depth", "recipes"),
    "data": ("data",),
    "kernels": ("kernels",),
    "model": ("model",),
    "optim": ("optim",),
    "inference": ("inference",),
    "evals": ("evals",),
    "training": ("training",),
    "speedrun": ("planning", "options", "speedrun", "reporting"),
    "lab": ("lab",),
    "rest": (),
}

UNREADABLE = {"nanogpt2.evals.harness"}
"""modules that cannot be imported, and so not documented, without an optional package"""


@dataclass(frozen=True)
class Chapter:
    """A chapter by its key, and the modules it explains."""

    key: str
    title: str
    rooms: tuple[str, ...]
    document: str | None
    """its page, ``chapters/01_rope``; None while it is not written"""

    @property
    def link(self) -> str:
        """Markdown that names the chapter, with a link where it exists."""
        if self.document is None:
            return f"*{self.title}* (to come)"
        return f"{{doc}}`{self.title} </{self.document}>`"


def read_rooms(path: Path = BOOK / "rooms.yml") -> list[Chapter]:
    """The chapters of ``rooms.yml``; KeyError for a notebook that it does not name."""
    written = {re.sub(r"^\d+_", "", notebook.stem): notebook.stem for notebook in chapters()}
    named = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(written) - set(named)
    if unknown:
        raise KeyError(f"{path.name} does not name {', '.join(sorted(unknown))}; add the chapter")
    return [
        Chapter(
            key,
            entry["title"],
            tuple(entry["rooms"]),
            f"chapters/{written[key]}" if key in written else None,
        )
        for key, entry in named.items()
    ]


def modules() -> list[str]:
    """Every public module of the package by its full name; nothing is imported but packages."""
    found = pkgutil.walk_packages(nanogpt2.__path__, "nanogpt2.")
    names = [module.name for module in found]
    public = {name for name in names if not any(p.startswith("_") for p in name.split("."))}
    return sorted(public - UNREADABLE)


def explained_in(module: str, rooms: list[Chapter]) -> list[Chapter]:
    """The chapters that name ``module`` itself; failing those, the ones that name its package."""
    while module != "nanogpt2":
        if named := [chapter for chapter in rooms if module in chapter.rooms]:
            return named
        module = module.rpartition(".")[0]
    return []


def page_of(module: str) -> str:
    """The API page that shows ``module``."""
    room = module.split(".")[1]
    return next((page for page, named in PAGES.items() if room in named), "rest")


def api_page(page: str, rooms: list[Chapter], repository: str, branch: str) -> str:
    """Body of an API page: per module its chapter, its source and its docstrings."""
    parts = [
        _module(name, rooms, repository, branch) for name in modules() if page_of(name) == page
    ]
    return "\n\n".join(parts) or "This part of the package is not written yet."


def _module(name: str, rooms: list[Chapter], repository: str, branch: str) -> str:
    path = Path(nanogpt2.__file__).parent.joinpath(*name.split(".")[1:])
    is_package = path.is_dir()
    file = path / "__init__.py" if is_package else path.with_suffix(".py")
    relative = file.relative_to(Path(nanogpt2.__file__).parents[1])
    links = [f"[source]({repository}/blob/{branch}/{relative})"]
    if found := explained_in(name, rooms):
        links.insert(0, "explained in " + ", ".join(chapter.link for chapter in found))
    options = ["   :members:", "   :member-order: bysource", "   :ignore-module-all:"]
    if is_package and not re.search(r"^(class|def) ", file.read_text(encoding="utf-8"), re.M):
        options = []  # it only passes names on, which their own modules show
    directive = "\n".join([f".. automodule:: {name}", *options])
    return (
        f"## {name.removeprefix(PREFIX)}\n\n{'; '.join(links)}\n\n```{{eval-rst}}\n{directive}\n```"
    )


def links_for(notebook: Path, rooms: list[Chapter]) -> str:
    """Markdown that ends a chapter: the modules it explains, linked to their API pages."""
    for chapter in rooms:
        if chapter.document == f"chapters/{notebook.stem}":
            known = set(modules())
            named = [f"{{py:mod}}`{name}`" for name in chapter.rooms if name in known]
            if named:
                return "**In the package.** This chapter explains " + ", ".join(named) + "."
    return ""


def chapter_table(rooms: list[Chapter]) -> str:
    """Every chapter with the modules it explains."""
    known = set(modules())
    rows = ["| chapter | in the package |", "| --- | --- |"]
    for chapter in rooms:
        named = ", ".join(f"{{py:mod}}`{name}`" for name in chapter.rooms if name in known)
        rows.append(f"| {chapter.link} | {named or 'to come'} |")
    return "\n".join(rows)
