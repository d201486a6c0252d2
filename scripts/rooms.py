"""The package's modules, the chapters that explain them, and the API pages made from both."""

from __future__ import annotations

import ast
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

import nanogpt2
from scripts.paths import BOOK, chapters

PREFIX = "nanogpt2."
NAMED = re.compile(r"Chapters?:\s+(\w+(?:,\s+\w+)*)\.")
# API page -> the rooms that it shows; "rest" has those that no other page names
PAGES: dict[str, tuple[str, ...]] = {
    "config": ("reported", "settings", "config", "recipes", "rungs", "depth", "run"),
    "data": ("data",),
    "kernels": ("kernels",),
    "model": ("model",),
    "optim": ("optim",),
    "inference": ("inference",),
    "evals": ("evals",),
    "training": ("training",),
    "speedrun": ("costs", "memory", "fitting", "outlook", "planning", "reporting")
    + ("compare", "asked", "stages", "speedrun"),
    "export": ("export",),
    "lab": ("lab",),
    "studies": ("studies",),
    "rest": (),
}

UNREADABLE = {"nanogpt2.evals.harness", "nanogpt2.export.modeling_nanogpt2"}
"""modules that cannot be imported, and so not documented, without an optional package"""


@dataclass(frozen=True)
class Chapter:
    """A chapter by its key, and the modules it explains."""

    key: str
    title: str
    rooms: tuple[str, ...]
    """modules that name the chapter; what is below one of them needs no name of its own"""
    document: str | None
    """its page, ``chapters/05_rotary_positions``; None while it is not written"""

    @property
    def link(self) -> str:
        """Markdown that names the chapter, with a link where it exists."""
        if self.document is None:
            return f"*{self.title}* (to come)"
        return f"{{doc}}`{self.title} </{self.document}>`"


def read_rooms(path: Path = BOOK / "rooms.yml") -> list[Chapter]:
    """The chapters of ``rooms.yml``, each with the modules whose docstrings name it.

    Raises KeyError where a notebook or a docstring names a chapter that the file does not.
    """
    written = {key_of(notebook): notebook.stem for notebook in chapters()}
    titles = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = {module: chapters_named(source_of(module)) for module in modules()}
    unknown = {*written, *(key for keys in named.values() for key in keys)} - set(titles)
    if unknown:
        raise KeyError(f"{path.name} does not name {', '.join(sorted(unknown))}; add the chapter")
    return [
        Chapter(
            key,
            title,
            tuple(m for m, keys in named.items() if key in keys and keys != _above(m, named)),
            f"chapters/{written[key]}" if key in written else None,
        )
        for key, title in titles.items()
    ]


def key_of(notebook: Path) -> str:
    """A chapter's key: its file name without the number."""
    return re.sub(r"^\d+_", "", notebook.stem)


def chapters_named(source: str) -> tuple[str, ...]:
    """Keys at the end of a module's docstring: ``Chapter: norms.``, ``Chapters: zero2, core.``"""
    found = NAMED.search(ast.get_docstring(ast.parse(source)) or "")
    return tuple(re.findall(r"\w+", found.group(1))) if found else ()


def source_of(module: str) -> str:
    """The text of a module of the package; nothing is imported."""
    return _file(module).read_text(encoding="utf-8")


def _file(module: str) -> Path:
    path = Path(nanogpt2.__file__).parent.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _above(module: str, named: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What the nearest package above ``module`` names."""
    while "." in module:
        module = module.rpartition(".")[0]
        if keys := named.get(module):
            return keys
    return ()


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
    file = _file(name)
    is_package = file.name == "__init__.py"
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
