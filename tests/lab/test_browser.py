"""The page parts in Chromium, from a file, with no network: by mouse, by keys, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanogpt2 import lab

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def frame(turns: int, base: int) -> tuple[Any, str]:
        with lab.plotting(3, 2) as (fig, axes):
            axes.plot([0, turns], [0, base])
        return fig, f"a line to {turns}, {base}"

    bet = lab.predict("Which is more?", ["one", "two"])
    parts = [
        bet,
        lab.explore(frame, turns=[1, 2, 3], base=[10, 20]),
        lab.explore(frame, turns=[1, 2], base=[10, 20]),
        bet.reveal("two", "It was measured."),
        lab.quiz("Right?", ["left", "right"], "right", {"left": "No, *left*.", "right": "Yes."}),
        lab.lines([0, 1], {"a": [0, 1]}, alt="a line"),
        lab.claim("speed", 3.0),
        lab.table(
            ["name", "size"],
            [["pear", "+10"], ["apple", ""], ["fig", "-2"], ["nut", "9"]],
            sortable=True,
        ),
        lab.check(lambda: 1, [((), 1)]),
        lab.case(
            "Who did it?",
            ["butler", "cook"],
            "cook",
            "<p>The soup.</p>",
            [("taste", 2, "salty"), ("ask", 5, "silence")],
        ),
    ]
    page = tmp_path_factory.mktemp("page") / "page.html"
    body = "\n".join(f"<section>{item.html}</section>" for item in parts)
    page.write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>parts</title>'
        "<style>html[data-theme=dark]{background:#14181e;color:#e6e8eb}</style>"
        f"<body>{body}</body></html>"
    )
    return page


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith("file:") else problems.append(r.url))
    page.goto(page_file.as_uri())
    yield page
    context.close()
    assert not problems


def shown(page: Any, explorer: int = 0) -> str:
    svg = page.locator(".ng-explore").nth(explorer).locator(".ng-stage svg")
    assert svg.count() == 1
    return str(svg.get_attribute("aria-label"))


def test_sliders_turn_frames_by_keyboard(page: Any) -> None:
    sliders = page.locator(".ng-explore").first.locator("input")
    assert shown(page) == "a line to 1, 10"
    sliders.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    sliders.nth(1).focus()
    page.keyboard.press("End")
    assert shown(page) == "a line to 3, 20"
    assert sliders.nth(0).get_attribute("aria-valuetext") == "3"
    assert page.locator(".ng-explore output").first.inner_text() == "3"
    assert shown(page, 1) == "a line to 1, 10"  # its neighbour stayed where it was


def test_a_table_is_sorted_by_a_press_on_a_header(page: Any) -> None:
    box = page.locator(".ng-table").first

    def names() -> list[str]:
        return box.locator("tbody th").all_inner_texts()

    assert names() == ["pear", "apple", "fig", "nut"]
    name, size = box.locator("thead button").all()
    size.click()
    assert names() == ["fig", "nut", "pear", "apple"], "by number, and what is empty last"
    assert box.locator("thead th").nth(1).get_attribute("aria-sort") == "ascending"
    size.press("Enter")
    assert names() == ["pear", "nut", "fig", "apple"]
    name.focus()
    page.keyboard.press("Space")
    assert names() == ["apple", "fig", "nut", "pear"]
    assert box.locator("th[aria-sort]").count() == 1


def test_a_prediction_is_kept_and_revealed(page: Any) -> None:
    box, later = page.locator(".ng-predict").first, page.locator(".ng-reveal")
    assert box.locator(".ng-commit").is_disabled()
    assert "Measured" not in later.inner_text()
    box.get_by_text("one", exact=True).click()
    box.locator(".ng-commit").click()
    assert "Kept: one" in box.inner_text()
    assert "You predicted: one." in later.inner_text()
    assert "Measured: two. It was measured." in later.inner_text()
    for _ in range(20):  # a browser on a busy machine stores in its own time
        page.reload()
        if "Kept: one" in box.inner_text():
            break
    assert "Kept: one" in box.inner_text() and "Measured: two" in later.inner_text()
    assert box.locator("input").first.is_disabled()
    box.locator(".ng-again").click()
    assert "Measured" not in later.inner_text() and box.locator("input").first.is_enabled()


def test_a_prediction_is_made_by_keys_alone(page: Any) -> None:
    box = page.locator(".ng-predict").first
    box.locator("input").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "Kept: two" in box.inner_text()
    assert "You predicted this." in page.locator(".ng-reveal").inner_text()


def test_the_answer_is_heard_where_no_prediction_was_made(page: Any) -> None:
    """The pressed button goes, so the focus goes to what it opened, and nothing else is said."""
    later = page.locator(".ng-reveal")
    later.get_by_role("button").press("Enter")
    assert "Measured: two" in later.inner_text()
    assert page.evaluate("document.activeElement.className") == "ng-after"
    assert "not committed" not in later.inner_text()


def test_a_choice_is_kept_where_storage_is_full(page: Any) -> None:
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    box = page.locator(".ng-predict").first
    box.get_by_text("one", exact=True).click()
    box.locator(".ng-commit").click()
    assert "Kept: one" in box.inner_text()


def test_a_quiz_marks_and_lets_try_again(page: Any) -> None:
    box = page.locator(".ng-quiz")
    box.get_by_text("left", exact=True).click()
    box.get_by_role("button").click()
    assert "Not this one." in box.inner_text() and box.locator("em").inner_text() == "left"
    box.get_by_text("right", exact=True).click()
    box.get_by_role("button").click()
    assert "Right. Yes." in box.inner_text()


def test_a_case_sells_measurements_between_two_diagnoses(page: Any) -> None:
    box = page.locator(".ng-case")

    def told(*texts: str) -> list[bool]:
        return [text in box.inner_text() for text in texts]

    assert box.locator(".ng-commit").is_disabled() and not box.locator(".ng-shop").is_visible()
    assert told("salty", "silence", "The soup") == [False, False, False]
    box.get_by_text("butler", exact=True).click()
    box.locator(".ng-commit").click()
    box.get_by_role("button", name="ask · 5 min").click()
    assert told("silence", "salty", "Spent: 5 minutes", "The soup") == [True, False, True, False]
    page.reload()
    assert told("silence", "Spent: 5 minutes") == [True, True]
    box.get_by_text("cook", exact=True).click()
    box.get_by_role("button", name="Close the case").click()
    assert told("first diagnosis was wrong, your last is right", "The soup") == [True, True]
    assert box.locator("input").first.is_disabled()
    box.locator(".ng-again").click()
    assert told("silence", "The soup") == [False, False]


def test_themes_change_ink_and_colours(page: Any) -> None:
    line = page.locator(".ng-figure svg path[style*='--ng-c0']").first
    look = "e => getComputedStyle(e).stroke"
    light = line.evaluate(look)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert (light, line.evaluate(look)) == ("rgb(0, 114, 178)", "rgb(86, 180, 233)")


def test_nothing_overflows_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ids = page.evaluate("Array.from(document.querySelectorAll('[id]')).map(e => e.id)")
    assert len(ids) == len(set(ids))
