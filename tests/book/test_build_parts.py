"""What the build writes into pages: facts, the ladder, the links between book and code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.lab import recorded
from nanogpt2.recipes import Recipe
from nanogpt2.reported import SOURCES, constants
from scripts import chapters, depends, facts, ladder, pages, rooms
from scripts.assemble import _below_title, _hide_injected, minutes
from scripts.paths import BOOK, ROOT, document, notebooks
from tests.waiting import wait_until

FACTS = {
    "gpt2_cost": "43,008",
    "run1_hours": "3.04",
    "run1_cost": "73",
    "run1_steps": "16,704",
    "run1_tokens": "8,757,706,752",
    "run1_flops_per_token": "4,945,112,064",
    "run1_flops": "4.330784131228946e+19",
    "run1_wte": "50,331,648",
    "run1_value_embeddings": "603,979,776",
    "run1_matrices": "679,481,856",
    "run1_total": "1,384,124,976",
    "d12_value_embeddings": "150,994,944",
    "d12_total": "286,262,424",
    "cost_fall": "590",
    "cost_per_year": "0.40",
    "gpt2_cost_of_chips": "10,752",
    "llmc_fall": "64",
    "since_llmc_fall": "9",
    "core_margin": "0.0020",
}


@pytest.mark.parametrize("name", FACTS)
def test_fact(name: str) -> None:
    assert facts.facts()[name] == FACTS[name]


def test_readme_says_how_large_the_package_is() -> None:
    said = re.search(
        r"About ([\d,]+) lines in all", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert said
    lines = int(said.group(1).replace(",", ""))
    assert abs(lines / facts.package_lines() - 1) < 0.05, facts.package_lines()


def test_every_substitution_of_a_page_is_a_fact() -> None:
    known = {*facts.facts(), "repository"}
    for page in [*BOOK.rglob("*.md"), *notebooks()]:
        used = set(re.findall(r"\{\{ *(\w+) *\}\}", page.read_text(encoding="utf-8")))
        assert used <= known, f"{page.name}: {used - known}"


def test_every_source_of_a_reported_number_is_in_the_bibliography() -> None:
    keys = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), re.M))
    assert set(SOURCES) <= keys
    for name, value in constants().items():
        assert value.key in SOURCES and value.unit and value.date, name
        assert f"{name.lower().replace('_', ' ')} |" in facts.reported_table()


def test_every_citation_is_in_the_bibliography() -> None:
    keys = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(), re.M))
    for page in [*BOOK.rglob("*.md"), *notebooks()]:
        cited = re.findall(r"\{cite(?::t)?\}`([\w,]+)`", page.read_text(encoding="utf-8"))
        assert {key for group in cited for key in group.split(",")} <= keys, page.name


def links(page: Path) -> list[Path]:
    """The files that a page's links name: relative ones, ``{doc}`` roles, files on GitHub."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        on_github = re.match(
            r"https://github\.com/nanogpt2/nanogpt2/(?:blob|tree)/main/(.+)", target
        )
        if on_github:
            found.append(ROOT / on_github.group(1))
        elif not re.match(r"[a-z]+:|#", target):
            found.append(page.parent / target.partition("#")[0])
    for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`<>]+)>?`", text):
        base = ROOT / target[1:] if target.startswith("/") else page.parent / target
        found.append(
            next((f for f in (base.with_suffix(s) for s in (".md", ".ipynb")) if f.exists()), base)
        )
    return found


@pytest.mark.parametrize(
    "page", [*sorted(BOOK.rglob("*.md")), *notebooks(), ROOT / "README.md"], ids=lambda p: p.stem
)
def test_links_of_the_sources_lead_to_files(page: Path) -> None:
    assert [path for path in links(page) if not path.exists()] == []


def test_a_link_to_a_file_that_moved_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text(
        "[a](b.md), {doc}`c`, {doc}`D </book/index>`, [e](#f), [g](https://h.org), [m]"
        "(https://github.com/nanogpt2/nanogpt2/blob/main/nanogpt2/model/no_such.py)\n"
    )
    (tmp_path / "c.md").touch()
    named = [path.name for path in links(page) if not path.exists()]
    assert named == ["b.md", "no_such.py"]


def test_leaderboard_has_the_six_records() -> None:
    lines = facts.leaderboard().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [f"run{i}" for i in range(1, 7)]
    steps = [line.split("|")[8].strip() for line in lines]
    assert steps == ["16,704", "14,889", "7,226", "6,612", "6,055", "5,568"]
    runs = [line.split("|")[5].strip() for line in lines]
    assert runs == ["one run"] * 3 + ["mean of 7", "mean of 5", "mean of 5"]


def test_rungs_lead_from_gpt2_to_run1() -> None:
    """Each rung is a switch that differs, and together they are all that differs but starts."""
    plain, top = GPTConfig.gpt2(), GPTConfig()
    names = {field.name for field in fields(GPTConfig)}
    switches = {rung.switch for rung in ladder.RUNGS}
    assert switches - names == {"matrices"} <= {field.name for field in fields(Recipe)}
    differing = {name for name in names if getattr(plain, name) != getattr(top, name)}
    assert differing - {"wte_std", "norm_learnable"} == switches - {"matrices"}


def test_every_rung_names_a_chapter_that_is_known() -> None:
    assert {rung.chapter for rung in ladder.RUNGS} <= {c.key for c in rooms.read_rooms()}


def test_results_show_tables_and_mean_curves() -> None:
    entry = recorded("speedrun-laptop")
    name, points = pages.curve(entry)
    assert name == "bits per byte"
    assert points[-1] == (entry.curve[-1]["step"], entry.curve[-1]["val_bpb"])
    page = pages.results_page("REPOSITORY", "main")
    assert "| Muon |" in page and "<svg" in page
    assert "| attention | banded, T 2048, window T/4, float32" in page
    assert ":::{dropdown} rows" in page and "in the file" not in page


def test_ladder_says_its_rungs_and_links_written_chapters() -> None:
    known = [rooms.Chapter("rotary_positions", "Rotary positions", (), "chapters/05_rotary")]
    picture = ladder.ladder_svg(known)
    label = re.search(r'aria-label="([^"]+)"', picture)
    assert label and all(rung.name in label.group(1) for rung in ladder.RUNGS)
    assert picture.count('<a href="../chapters/05_rotary.html">') == 1


def test_rooms_are_what_their_docstrings_say() -> None:
    assert rooms.chapters_named('"""A.\n\nChapters: norms,\nzero2."""') == ("norms", "zero2")
    assert rooms.chapters_named('"""A. Chapter: core."""') == ("core",)
    assert rooms.chapters_named('"""The chapter on norms."""') == ()
    known = rooms.modules()
    assert "nanogpt2.config" in known and not any("._" in name for name in known)
    named = {chapter.key: chapter.rooms for chapter in rooms.read_rooms()}
    assert "nanogpt2.model.rope" in named["rotary_positions"]
    assert "nanogpt2.studies.core" in named["core"]
    assert "nanogpt2.studies.core.measures" not in named["core"]  # its package says so


def test_a_docstring_that_names_no_chapter_of_the_book_is_noticed(tmp_path: Path) -> None:
    titles = tmp_path / "rooms.yml"
    titles.write_text("norms: RMSNorm and QK-norm\n")
    with pytest.raises(KeyError, match="rotary_positions"):
        rooms.read_rooms(titles)


def test_each_chapter_is_in_rooms_and_contents() -> None:
    toc = json.dumps(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    for notebook in notebooks():
        assert f'"{document(notebook)}"' in toc
    named = {chapter.document for chapter in rooms.read_rooms()}
    for notebook in notebooks():
        assert notebook.parent.name != "chapters" or document(notebook) in named


def test_a_package_explains_its_modules_unless_they_have_their_own() -> None:
    known = [
        rooms.Chapter("data", "Data", ("nanogpt2.data",), None),
        rooms.Chapter("pack", "Packing", ("nanogpt2.data.packing",), None),
    ]
    assert [c.key for c in rooms.explained_in("nanogpt2.data.loader", known)] == ["data"]
    assert [c.key for c in rooms.explained_in("nanogpt2.data.packing", known)] == ["pack"]
    assert rooms.explained_in("nanogpt2.depth", known) == []


def test_every_module_has_an_api_page_in_the_contents() -> None:
    toc = (ROOT / "_toc.yml").read_text()
    for name in rooms.modules():
        assert f"book/api/{rooms.page_of(name)}\n" in toc
    for page in rooms.PAGES:
        assert (BOOK / "api" / f"{page}.md").exists()


def test_a_chapter_depends_on_the_code_that_it_reaches(tmp_path: Path) -> None:
    package = tmp_path / "nanogpt2"
    files = {
        "__init__.py": "",
        "config.py": "",
        "alone.py": "",
        "lab/__init__.py": "from nanogpt2.config import (\n    A,\n)",
        "lab/static/lab.css": "",
        "studies/__init__.py": "",
        "studies/muon.py": "",
        "studies/norms.py": "def f():\n    import nanogpt2.late",
        "late.py": "",
        "evals/__init__.py": "",
        "evals/__main__.py": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)

    def reached(text: str) -> set[str]:
        return {
            path.relative_to(package).as_posix() for path in depends.code_reached(text, tmp_path)
        }

    lab = {"__init__.py", "lab/__init__.py", "lab/static/lab.css", "config.py"}
    assert reached("from nanogpt2 import lab") == lab
    norms = {"__init__.py", "studies/__init__.py", "studies/norms.py", "late.py"}
    assert reached("from nanogpt2.studies import norms") == norms
    command = 'run("python -m nanogpt2.evals --x")'
    assert reached(command) == {"__init__.py", "evals/__init__.py", "evals/__main__.py"}


def test_a_fingerprint_follows_the_notebook_its_parameters_and_its_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(depends, "ROOT", tmp_path)
    monkeypatch.setattr(depends, "RESULTS", tmp_path)
    notebook = tmp_path / "01_x.ipynb"

    def mark(text: str, **parameters: int) -> str:
        notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": text}]}))
        return depends.fingerprint(notebook, parameters)

    before = mark('lab.recorded("quoted")', SEED=0)
    assert before == mark('lab.recorded("quoted")', SEED=0)
    assert before != mark('lab.recorded("quoted")', SEED=1)
    assert before != mark('lab.recorded("quoted") ', SEED=0)
    (tmp_path / "unknown.json").write_text("{}")
    assert before == mark('lab.recorded("quoted")', SEED=0)
    (tmp_path / "quoted.json").write_text("{}")
    assert before != mark('lab.recorded("quoted")', SEED=0)


def test_unknown_parameter_is_refused(tmp_path: Path) -> None:
    cells = [{"metadata": {"tags": ["parameters"]}, "source": ["DEPTH = 12\n", "SEED = 0"]}]
    path = tmp_path / "01_x.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    chapters.check_parameters(path, {"DEPTH": 12})
    with pytest.raises(UserError, match="no parameter SCALE"):
        chapters.check_parameters(path, {"DEPTH": 12, "SCALE": "ci"})


def test_injected_cell_is_hidden_only_when_it_repeats_what_is_shown() -> None:
    def cells(depth: int) -> list[dict]:
        return [
            {"metadata": {"tags": ["parameters"]}, "source": ["DEPTH = 12  # layers\n"]},
            {"metadata": {"tags": ["injected-parameters"]}, "source": f"# P\nDEPTH = {depth}"},
        ]

    same, other = cells(12), cells(24)
    _hide_injected(same)
    _hide_injected(other)
    assert "remove-cell" in same[1]["metadata"]["tags"]
    assert "remove-cell" not in other[1]["metadata"]["tags"]


def test_memory_of_children_counts() -> None:
    """A child that fills 200 MB is seen by the sampler of its parent."""
    child = "x = bytearray(200_000_000); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        sampler = chapters.PeakMemory(process.pid)
        sampler.start()
        wait_until(lambda: sampler.peak > 200_000_000, lambda: process.poll() is None)
        process.communicate(b"\n")
        sampler.ended.set()


def test_reading_time_and_its_place() -> None:
    assert minutes("word " * 1000) == 5
    assert minutes("```\n" + "code " * 1000 + "\n```") == 1
    page = _below_title("(label)=\n# Title\n\nText", "2 minutes")
    assert page.index("# Title") < page.index("2 minutes") < page.index("Text")
