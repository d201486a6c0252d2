"""Every page of the rendered book in headless Chromium, with all outside addresses blocked.

Run by ``make check-book``, after ``make book``. One browser for all; each page is loaded once and
looked at in light and dark, at 1280 and 400 px.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.paths import EXECUTED, HTML, ROOT, document, notebooks
from tests.book.answers import OF_THE_BROWSER, shown_answers

pytestmark = pytest.mark.book

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PAGES = sorted(
    name
    for path in HTML.rglob("*.html")
    if not (name := path.relative_to(HTML).as_posix()).startswith("_")
)
NO_ARTICLE = {"index.html", "genindex.html", "search.html", "py-modindex.html"}
ARTICLES = [page for page in PAGES if page not in NO_ARTICLE]
PROBE = (Path(__file__).parent / "probe.js").read_text()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    assert ARTICLES, "there is no book in _build/html; run `make book`"
    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def context(site: str) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(color_scheme="light")
        context.route(
            lambda url: not url.startswith((site, "file:", "data:", "blob:")),
            lambda route: route.abort(),
        )
        yield context
        browser.close()


SETTLED = """Promise.race([
    Promise.allSettled(document.getAnimations().map(moving => moving.finished)),
    new Promise(enough => setTimeout(enough, 2000)),
])"""  # an animation of a hidden part may never finish


class Opened:
    """A page with what went wrong while it loaded."""

    def __init__(self, context: Any, address: str) -> None:
        self.page = context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        self.page.on("requestfailed", lambda r: self.wrong.append(f"request failed: {r.url}"))
        self.page.on("response", self._answered)
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.goto(address, wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise")

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")

    def look(self) -> list[str]:
        """What is wrong with the page as it is shown now."""
        return list(self.page.evaluate(PROBE))


@pytest.mark.parametrize("page", ARTICLES)
def test_page(page: str, context: Any, site: str) -> None:
    """Nothing fails, formulas and figures are there, text is readable, nothing sticks out."""
    opened = Opened(context, f"{site}/{page}")
    found: list[str] = []
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        for width in (1280, 400):
            opened.page.set_viewport_size({"width": width, "height": 900})
            opened.page.wait_for_timeout(100)
            opened.page.evaluate(SETTLED)  # colours fade into each other
            found += [f"{scheme}, {width} px: {problem}" for problem in opened.look()]
    opened.page.close()
    assert opened.wrong + found == []


def test_page_opens_from_a_file(context: Any) -> None:
    """No server needed: formulas are typeset from file:// too."""
    opened = Opened(context, f"file://{HTML}/book/notation.html")
    assert opened.wrong + opened.look() == []
    opened.page.close()


def test_search_finds_a_word(context: Any, site: str) -> None:
    opened = Opened(context, f"{site}/search.html?q=rotary")
    opened.page.wait_for_selector("#search-results li")
    assert opened.page.locator("#search-results li").count() >= 2
    assert opened.wrong == []
    opened.page.close()


def test_theme_button_turns_the_page_dark(context: Any, site: str) -> None:
    opened = Opened(context, f"{site}/book/index.html")
    seen = set()
    for _ in range(3):
        opened.page.locator(".theme-switch-button:visible").first.click()
        seen.add(opened.page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}
    opened.page.close()


def test_root_leads_to_the_welcome_page(context: Any, site: str) -> None:
    page = context.new_page()
    page.goto(f"{site}/index.html", wait_until="commit")
    page.wait_for_url("**/book/index.html")
    assert page.locator("article h1").count() == 1
    page.close()


@functools.cache
def soup(page: str) -> Any:
    from bs4 import BeautifulSoup

    return BeautifulSoup((HTML / page).read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("page", PAGES)
def test_page_asks_nothing_of_other_hosts(page: str) -> None:
    """Scripts, styles, pictures and frames are in the build."""
    for tag in soup(page)(["script", "img", "iframe", "source", "video", "audio", "link"]):
        address = tag.get("src") or (tag.get("href") if tag.name == "link" else None) or ""
        if tag.name == "link" and not {"stylesheet", "preload", "icon"} & set(tag.get("rel", [])):
            continue
        assert not re.match(r"(https?:)?//", address), f"{tag.name} asks for {address}"


@pytest.mark.parametrize("page", ARTICLES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link inside the book has a page and, where it names one, a place."""
    for link in soup(page).select("article a[href], .prev-next-area a[href]"):
        path, _, anchor = link["href"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = ((HTML / page).parent / path.split("?")[0]).resolve() if path else HTML / page
        assert target.is_file(), f"{link['href']} leads nowhere"
        if anchor and target.suffix == ".html":
            aimed = soup(target.relative_to(HTML).as_posix())
            assert aimed.find(id=anchor), f"{link['href']} has no such place"


@pytest.mark.parametrize("page", ARTICLES)
def test_no_answer_stands_open(page: str) -> None:
    """A question's explanation is not on the page, in code either, before a reader commits."""
    assert shown_answers(soup(page)) == []


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_no_answer_is_visible_before_the_reader_commits(
    notebook: Path, context: Any, site: str
) -> None:
    opened = Opened(context, f"{site}/{document(notebook)}.html")
    assert opened.page.evaluate(OF_THE_BROWSER) == []
    opened.page.close()


def shown_outputs(notebook: Path) -> int:
    """How many cells of the executed notebook have outputs that the page must show."""
    hidden = {"remove-cell", "remove-output", "remove_cell", "remove_output"}
    cells = json.loads((EXECUTED / notebook.name).read_text())["cells"]
    return sum(
        bool(
            cell["cell_type"] == "code"
            and not hidden & set(cell["metadata"].get("tags", []))
            and [out for out in cell["outputs"] if out.get("name") != "stderr"]
        )
        for cell in cells
    )


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_notebook_page_has_its_outputs_and_buttons(notebook: Path) -> None:
    page = soup(f"{document(notebook)}.html")
    expected = shown_outputs(notebook)
    assert expected > 0
    # a cell that only wrote to stderr keeps an empty place
    shown = [output for output in page.select("div.cell div.cell_output") if output.find(True)]
    assert len(shown) == expected
    links = {link["href"] for link in page.select("a[href]")}
    relative = notebook.relative_to(ROOT).as_posix()
    for start, part in (
        ("https://colab.research.google.com/", relative),
        ("https://mybinder.org/", ""),
        ("https://github.com/", f"edit/main/{relative}"),
    ):
        assert any(link.startswith(start) and part in link for link in links), start
    assert any(link.endswith(f"_sources/{relative}") for link in links), "no download"
    assert "to read" in page.select_one("p.ng-meta").text
    assert "ran in" in page.select_one("p.ng-meta").text


@pytest.mark.parametrize("page", ARTICLES)
def test_page_shows_no_placeholder(page: str) -> None:
    """Nothing that the build should have filled in; a clone line has ``_config.yml``'s address."""
    text = soup(page).select_one("article").get_text()
    left = r"REPOSITORY|\{VERSION\}|\{\{ *\w+ *\}\}|\bTODO\b|\bFIXME\b|[Ll]orem ipsum|<your"
    assert re.findall(left, text) == []
    for line in re.findall(r"git clone (\S+)", text):
        assert line == yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


@pytest.mark.parametrize("page", [p for p in ARTICLES if p.startswith("chapters/")])
def test_chapter_shows_the_number_of_its_file(page: str) -> None:
    own = int(page.removeprefix("chapters/")[:2])
    number = soup(page).select_one("article h1 .section-number")
    assert number and number.text.strip() == f"{own}."
    equations = [place.text for place in soup(page).select("article .eqno")]
    assert all(text.startswith(f"({own}.") for text in equations), equations


@pytest.mark.parametrize("page", [p for p in ARTICLES if not p.startswith("book/api/")])
def test_page_has_reading_time_neighbours_and_source(page: str) -> None:
    assert soup(page).select_one("p.ng-meta"), "no reading time"
    assert soup(page).select_one(".prev-next-area a"), "no previous or next page"
    edit = [a["href"] for a in soup(page).select("a[href*='/edit/']")]
    assert edit, "no link to edit the page"
    source = edit[0].partition("/edit/main/")[2]
    assert (ROOT / source).is_file(), f"the edit link names {source}"


def test_chapter_and_room_link_each_other() -> None:
    """Both ways: the API page names the chapter, the chapter ends with the modules."""
    from scripts import rooms

    known = set(rooms.modules())
    for chapter in rooms.read_rooms():
        if chapter.document is None:
            continue
        there = soup(f"{chapter.document}.html")
        for room in set(chapter.rooms) & known:
            page = f"book/api/{rooms.page_of(room)}.html"
            assert there.select(f'a[href*="{page}#module-{room}"]'), f"{chapter.key}: no {room}"
            assert soup(page).select(f'a[href*="{chapter.document}.html"]'), f"{room}: no chapter"


WITH_PANELS = [page for page in ARTICLES if 'class="ng ng-panel"' in (HTML / page).read_text()]


@pytest.mark.parametrize("page", WITH_PANELS)
def test_a_panel_measures_on_the_books_model(page: str, context: Any) -> None:
    """From a file: bet, load, measure; then the page is as readable as before."""
    opened = Opened(context, (HTML / page).as_uri())
    boxes = opened.page.locator(".ng-panel").all()
    for box in boxes:
        bet = opened.page.locator(f'.ng-predict[data-key="{box.get_attribute("data-key")}"]')
        bet.locator("input").first.check()
        bet.locator(".ng-commit").click()
        box.get_by_role("button").click()
        box.get_by_text("Measured: ").wait_for(timeout=120_000)
    opened.page.set_viewport_size({"width": 400, "height": 900})
    found = opened.look()
    opened.page.close()
    assert boxes and opened.wrong + found == []
