"""Lay the tree that Jupyter Book reads: pages, executed chapters, generated parts, scripts."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from nanogpt2.errors import UserError
from nanogpt2.export import web
from nanogpt2.files import read_json
from nanogpt2.lab.page import static
from nanogpt2.lab.panel import MEGABYTES
from scripts import facts, ladder, lines, pages, planned, rooms, welcome
from scripts.chapters import costs_file
from scripts.paths import BOOK, EXECUTED, ROOT, SOURCE, chapters, notebooks
from scripts.sources import name_sources
from scripts.terms import link_terms
from scripts.vendor import vendor

PAGE = ROOT / "nanogpt2" / "export" / "page"
"""the model's engine and page, which an exported model carries too"""
WORDS_PER_MINUTE = 200
CODE_LINES_PER_MINUTE = 15
HOME = "https://github.com/nanogpt2/nanogpt2"
"""what the sources of chapters call the repository; pages name the one of ``_config.yml``"""
FOLDED = {"hide-input", "remove-input", "remove-cell"}
"""tags of cells whose code the page does not show unasked"""


def assemble(with_api: bool = True) -> None:
    """Make ``_build/src`` anew."""
    browser_files = vendor()
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    config = configuration(with_api)
    _write_yaml("_config.yml", config)
    _write_yaml("_toc.yml", contents(with_api))
    ignored = shutil.ignore_patterns("results", "package*.json", "rooms.yml", "__pycache__")
    shutil.copytree(BOOK, SOURCE / "book", ignore=ignored)
    if not with_api:
        shutil.rmtree(SOURCE / "book" / "api", ignore_errors=True)
    shutil.copytree(browser_files, SOURCE / "book" / "_static" / "vendor")
    (SOURCE / "book" / "_static" / "lab.css").write_text(static("lab.css"), encoding="utf-8")
    shutil.copytree(
        PAGE, SOURCE / "book" / "_static" / "play", ignore=shutil.ignore_patterns("*.md")
    )
    shutil.copy(ROOT / "LICENSE", SOURCE / "book" / "_static" / "LICENSE.txt")
    known = rooms.read_rooms()
    _generate(SOURCE / "book" / "_generated", config["repository"], known, with_api)
    for page in (SOURCE / "book").glob("*.md"):
        text = finished(page.read_text(encoding="utf-8"), config)
        if page.stem not in ("glossary", "bibliography"):
            (text,) = link_terms([text])
        page.write_text(text, encoding="utf-8")
    (SOURCE / "chapters").mkdir()
    for path in notebooks():
        text = json.dumps(chapter(path, known, config["repository"]), ensure_ascii=False)
        text = text.replace(MEGABYTES, web.megabytes(BOOK / "_static" / "model"))
        (SOURCE / path.relative_to(ROOT)).write_text(text, encoding="utf-8")


def configuration(with_api: bool) -> dict[str, Any]:
    """``_config.yml`` with the numbers of the pages, and with the repository that builds it."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    if named := os.environ.get("GITHUB_REPOSITORY"):
        config["repository"]["url"] = f"https://github.com/{named}"
    config["parse"]["myst_substitutions"] = {
        **facts.facts(),
        "repository": config["repository"]["url"],
    }
    if not with_api:  # a link to a module has nowhere to go then
        config["sphinx"]["config"]["nitpick_ignore_regex"] = [["py:.*", ".*"]]
    return config


def contents(with_api: bool) -> dict[str, Any]:
    """``_toc.yml``; UserError unless it names exactly the chapters that exist."""
    toc: dict[str, Any] = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"chapters/([\w-]+)", json.dumps(toc)))
    written = {path.stem for path in chapters()}
    if listed != written:
        raise UserError(
            f"_toc.yml and chapters/ differ in {', '.join(sorted(listed ^ written))}; "
            "list each notebook once"
        )
    if not with_api:
        for part in toc["parts"]:
            part["chapters"] = [c for c in part["chapters"] if "api" not in c["file"]]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return toc


def chapter(path: Path, known: list[rooms.Chapter], repository: dict[str, str]) -> dict[str, Any]:
    """The executed notebook as the page shows it; UserError if it does not hold its outputs."""
    notebook = read_json(EXECUTED / path.name, "run `make chapters`")
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code" and cell["execution_count"] is None:
            raise UserError(f"{path.name} was not run to its end; run `make chapters`")
    _hide_injected(notebook["cells"])
    costs = read_json(costs_file(path))
    _insert_costs(notebook["cells"], costs)
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    texts = ("".join(cell["source"]).replace(HOME, repository["url"]) for cell in prose)
    for cell, text in zip(prose, link_terms(texts), strict=True):
        cell["source"] = text
    notebook["cells"] = name_sources(notebook["cells"], repository["url"], repository["branch"])
    if links := rooms.links_for(path, known):
        notebook["cells"].append(
            {"cell_type": "markdown", "id": "in-the-package", "metadata": {}, "source": links}
        )
    return notebook  # type: ignore[no-any-return]


def _assignments(cell: dict[str, Any]) -> dict[str, str]:
    lines = "".join(cell["source"]).splitlines()
    pairs = (line.split("#")[0].partition("=") for line in lines if "=" in line.split("#")[0])
    return {name.strip(): value.strip() for name, _, value in pairs}


def _hide_injected(cells: list[dict[str, Any]]) -> None:
    """Hide papermill's cell where it repeats the parameters that the page shows anyway."""
    shown: dict[str, str] = {}
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if "parameters" in tags:
            shown = _assignments(cell)
        if "injected-parameters" in tags and _assignments(cell).items() <= shown.items():
            cell["metadata"]["tags"] = [*tags, "remove-cell"]


def minutes(markdown: str, code_lines: int = 0) -> int:
    """Minutes to read: words at 200 a minute, lines of code at 15 a minute, at least 1."""
    prose = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]+>", " ", markdown, flags=re.S)
    return max(1, round(len(prose.split()) / WORDS_PER_MINUTE + code_lines / CODE_LINES_PER_MINUTE))


def reading_minutes(cells: list[dict[str, Any]]) -> int:
    """Minutes to read a notebook: its prose, and the code that its page shows."""
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    code = sum(
        len("".join(c["source"]).splitlines())
        for c in cells
        if c["cell_type"] == "code" and not FOLDED & set(c["metadata"].get("tags", []))
    )
    return minutes(prose, code)


def _insert_costs(cells: list[dict[str, Any]], costs: dict[str, Any]) -> None:
    """Under the title: minutes to read, and what running the chapter cost."""
    line = (
        f"{_to_read(reading_minutes(cells))} · ran in {costs['seconds']:.0f} s on "
        f"{costs['cores']} CPU cores with at most {costs['peak_bytes'] / 2**30:.1f} GiB "
        f"{facts.badge('live')}"
    )
    first = cells[0]
    first["source"] = _below_title("".join(first["source"]), line)


def finished(page: str, config: dict[str, Any]) -> str:
    """The page with its minutes under the title, and names where code blocks leave them open."""
    page = page.replace("REPOSITORY", config["repository"]["url"])
    page = page.replace("{VERSION}", "{" + config["parse"]["myst_substitutions"]["version"] + "}")
    return _below_title(page, _to_read(minutes(page)))


def _to_read(count: int) -> str:
    return f"{count} minute{'s' if count > 1 else ''} to read"


def _below_title(text: str, line: str) -> str:
    meta = f'\n\n<p class="ng-meta">{line}</p>\n'
    return re.sub(r"^(# .+)$", lambda match: match.group(1) + meta, text, count=1, flags=re.M)


def _generate(
    folder: Path, repository: dict[str, str], known: list[rooms.Chapter], with_api: bool
) -> None:
    """Parts that pages include."""
    url, branch = repository["url"], repository["branch"]
    read = {path.stem: reading_minutes(read_json(path)["cells"]) for path in chapters()}
    pages.write(folder, "achieved.md", welcome.price_figure())
    pages.write(folder, "path.md", welcome.path_table(known, read))
    pages.write(folder, "ladder.md", ladder.ladder_svg(known))
    pages.write(folder, "leaderboard.md", facts.leaderboard())
    pages.write(folder, "reported.md", facts.reported_table())
    pages.write(folder, "execution.md", pages.execution_table())
    pages.write(folder, "environment.md", pages.environment_table())
    pages.write(folder, "planner.md", planned.planner_part())
    pages.write(folder, "results.md", pages.results_page(url, branch))
    pages.write(folder, "chapters.md", rooms.chapter_table(known))
    pages.write(folder, "play.md", pages.play_part())
    pages.write(folder, "rooms.md", lines.book_tables())
    for name in rooms.PAGES if with_api else ():
        pages.write(folder / "api", f"{name}.md", rooms.api_page(name, known, url, branch))


def _write_yaml(name: str, value: Any) -> None:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
    (SOURCE / name).write_text(text, encoding="utf-8")
