"""What the build links: terms to the glossary, calls to their source, one address for the clone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import sources, terms
from scripts.paths import BOOK, ROOT, chapters, notebooks


def test_a_terms_first_use_is_linked_and_no_other() -> None:
    first, second = terms.link_terms(
        ["# Muon\n\n`Muon`, $Muon$, [Muon](a.md): Muon and\nMuon.", "Value\nembeddings, Muon."]
    )
    assert first == ("# Muon\n\n`Muon`, $Muon$, [Muon](a.md): {term}`Muon <Muon>` and\nMuon.")
    assert second == "{term}`Value embeddings <value embedding>`, Muon."


def test_words_that_hold_a_term_are_left_alone() -> None:
    text = "tokenizer, sub-token, MuonEqual, FLOPs/s"
    assert terms.link_terms([text])[0].replace("{term}`FLOPs <FLOP>`", "FLOPs") == text


@pytest.mark.parametrize("page", [*sorted(BOOK.glob("*.md")), *notebooks()], ids=lambda p: p.stem)
def test_linking_changes_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    texts = [text]
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    linked = terms.link_terms(texts)
    known = set(terms.glossary())
    found = [t for text in linked for t in re.findall(r"\{term\}`[^`<]* <([^>]*)>`", text)]
    assert len(found) == len(set(found)) and set(found) <= known
    back = [re.sub(r"\{term\}`([^`<]*) <[^>]*>`", r"\1", text) for text in linked]
    before = [re.sub(r"\{term\}`([^`<]*) <[^>]*>`", r"\1", text) for text in texts]
    assert [text.split() for text in back] == [text.split() for text in before]


def cell(code: str, *tags: str) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": code}


def test_the_first_call_of_a_function_is_explained_under_its_cell() -> None:
    cells = [
        cell("from nanogpt2.studies import muon\nfrom nanogpt2 import lab", "setup"),
        cell("muon.spectrum(G)\nlab.small_runs()"),
        cell("muon.flattened()", "hide-input"),
        cell("muon.spectrum(Q), lab.small_runs()"),
        cell("lab.curves({})\nmuon.verdict()", "remove-input"),
    ]
    found = sources.name_sources(cells, "https://git.example/x", "main")
    lines = [c["source"] for c in found if c["cell_type"] == "markdown"]
    assert len(lines) == 2 and found[2]["source"] == lines[0]
    assert "<code>muon.spectrum</code>: " in lines[0] and "lab.small_runs" in lines[0]
    address = re.search(r'href="https://git.example/x/blob/main/([^#]+)#L(\d+)"', lines[0])
    assert address
    line = (ROOT / address.group(1)).read_text().splitlines()[int(address.group(2)) - 1]
    assert line.startswith("def spectrum(")
    assert "muon.flattened" in lines[1]


@pytest.mark.parametrize("notebook", chapters(), ids=lambda path: path.stem)
def test_a_chapter_shows_before_it_reckons(notebook: Path) -> None:
    """A drawing of the chapter's study stands before its first formula."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    rooms = sources.STUDY.findall(code)
    names = "|".join(alias or name for name, alias in rooms)
    for one in cells:
        text = "".join(one["source"])
        if one["cell_type"] == "code" and re.match(
            rf"({names})\.\w+\(|lab\.(explore|show)\(", text
        ):
            return
        assert "$$" not in text, "a formula comes before any picture"
    raise AssertionError("no picture")


def test_the_address_of_the_clone_stands_in_one_place() -> None:
    """Pages write REPOSITORY and the build fills in what ``_config.yml`` says."""
    config = (ROOT / "_config.yml").read_text()
    (address,) = re.findall(r"^  url: (\S+)$", config, re.M)
    for page in BOOK.rglob("*.md"):
        assert f"git clone {address}" not in page.read_text(encoding="utf-8"), page.name
    assert "git clone REPOSITORY" in (BOOK / "index.md").read_text(encoding="utf-8")
