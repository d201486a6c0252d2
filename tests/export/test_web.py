"""The exported folder, opened from the disk: by pointer and keys, offline, light, dark, small."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.export import web
from nanogpt2.export.trained import Trained
from nanogpt2.export.web_format import bring, packed, page_tokenizer, quantize
from nanogpt2.model.gpt import GPT
from scripts.bigram import bigram, count_pairs
from tests.export.conftest import TEXT, shaken, shut
from tests.export.test_engine import CONFIGS, logits_of

PROBE = (Path(__file__).parents[1] / "book" / "probe.js").read_text().replace("article", "main")
TIMEOUT = 60_000
"""milliseconds: a busy machine may take them"""


@pytest.fixture(scope="module")
def trained(tokenizer: Tokenizer) -> Trained:
    model = shaken(GPT(replace(CONFIGS["run1"], sequence_len=96)))
    return Trained(Path("nowhere"), model, tokenizer)


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``write`` makes it, with an earlier checkpoint and a baseline beside."""
    folder = tmp_path_factory.mktemp("web")
    earlier = replace(trained, model=shaken(GPT(trained.model.config), seed=1))
    pairs = count_pairs([trained.tokenizer.encode(TEXT, True)], 300, 10_000)
    counted = bigram(pairs, 200)
    model = folder / "model"
    model.mkdir()
    size = bring(model, "bigram", packed(counted.to_bytes()))
    more = {
        "steps": {"early": 10, "final": 1000},
        "bigram": {"pairs": len(counted.seconds), "bytes": size, "bpb": 3.0},
    }
    sets = {"final": (trained, 8), "early": (earlier, 4)}
    web.write_model(model, sets, "A model", more=more)
    web.write_page(folder)
    return folder


class Opened:
    """The page, what it asked for, and what went wrong."""

    def __init__(self, context: Any, folder: Path) -> None:
        self.page = context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._said)
        self.page.set_default_timeout(TIMEOUT)
        self.page.goto(f"file://{folder}/index.html")

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def load(self) -> Any:
        self.page.get_by_role("button", name="Load the model").press("Enter")
        self.page.wait_for_selector(".ng-row")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Waits until the page has said all that it has to say of its text."""
        self.page.wait_for_function("""() => {
            const { play } = document.querySelector(".ng-play");
            return !play.running && play.inner && document.querySelector("tbody tr");
        }""")


@pytest.fixture
def opened(context: Any, folder: Path) -> Iterator[Opened]:
    alone = shut(context.browser)  # other pages that were opened from files store choices
    opened = Opened(alone, folder)
    yield opened
    assert opened.wrong == []
    alone.close()


def names(urls: list[str]) -> list[str]:
    return [Path(url).name for url in urls if "/model/" in url]


def test_nothing_is_loaded_before_it_is_asked_for(opened: Opened) -> None:
    page = opened.page
    page.wait_for_timeout(200)
    assert names(opened.asked) == []
    assert re.search(r"\(\d+\.\d MB\)", page.get_by_role("button").inner_text())
    opened.load()
    assert names(opened.asked) == ["card.js", "final.0.js"]
    page.get_by_role("button", name="Compare with counted").click()
    page.wait_for_selector("text=counted pairs")
    page.get_by_label("training time").press("Home")
    assert names(opened.asked)[2:] == ["bigram.js"]
    page.get_by_role("button", name="Load this checkpoint").click()
    page.wait_for_selector("tbody >> text=step 10")
    assert names(opened.asked)[3:] == ["early.0.js"]
    assert all(url.startswith(("file:", "blob:")) for url in opened.asked)


def test_nothing_is_stored(opened: Opened) -> None:
    page = opened.load()
    page.get_by_label("Your text").fill("a secret")
    opened.settle()
    kept = page.evaluate("""async () => [localStorage.length, sessionStorage.length,
        document.cookie, location.hash, (await indexedDB.databases()).length]""")
    assert kept == [0, 0, "", "", 0]


def test_the_page_says_what_the_package_says(opened: Opened, trained: Trained) -> None:
    """Surprise, the next tokens and the last layer of the text in the box."""
    page, tokenizer = opened.load(), trained.tokenizer
    text = "The people asked for a bridge"
    page.get_by_label("Your text").fill(text)
    opened.settle()
    ids = tokenizer.encode(text, prepend_bos=True)
    model = web.rounded(trained.model, 8)
    logits = logits_of(model, ids)
    bits = -logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0] / np.log(2)
    titles = page.eval_on_selector_all(".ng-row >> nth=0 >> span", "all => all.map((a) => a.title)")
    assert titles == [f"{b:.1f} bits" for b in bits.tolist()]
    per_byte = bits.sum().item() / len(text.encode())
    assert f"{per_byte:.3f} bits per byte" in page.locator(".ng-total").inner_text()
    page.get_by_label("temperature").evaluate(
        "(input) => { input.value = 1; input.dispatchEvent(new Event('input')); }"
    )
    page.wait_for_timeout(200)
    chances = logits[-1].softmax(-1)
    best = chances.argsort(descending=True)[:3].tolist()
    row = page.locator("tbody").first.locator("tr").last
    for place, token in enumerate(best):
        listed = page.get_by_role("list", name="The likeliest next tokens").locator("li").nth(place)
        said = listed.inner_text().split("\n")[-1]
        assert float(said.removesuffix("%")) == pytest.approx(100 * chances[token].item(), abs=0.6)
        assert row.locator("td").nth(place).inner_text().endswith(said)


def test_tokens_are_drawn_again_by_the_same_seed(opened: Opened) -> None:
    page = opened.load()
    texts = []
    for seed in ("7", "7", "8"):
        page.get_by_label("Your text").fill("The state of")
        opened.settle()
        page.get_by_label("seed").fill(seed)
        for _ in range(6):
            page.get_by_role("button", name="Step").click()
            opened.settle()
        texts.append(page.get_by_label("Your text").input_value())
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("The state of")
    page.get_by_role("button", name="Stream").click()
    opened.settle()
    assert len(page.get_by_label("Your text").input_value()) > len(texts[2])


def test_every_part_answers_to_keys_and_has_a_name(opened: Opened) -> None:
    page = opened.load()
    page.get_by_role("listbox", name="Tokens by surprise").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    opened.settle()
    chosen = page.locator(".ng-row [aria-selected=true]")
    assert chosen.count() == 2  # in both rows
    assert chosen.first.get_attribute("id").endswith("-1")
    before = page.locator("section >> text=This layer sees").inner_text()
    page.get_by_label("head").press("ArrowRight")
    page.wait_for_function("(before) => !document.body.innerText.includes(before)", arg=before)
    unnamed = page.evaluate("""() => [...document.querySelectorAll(
        ".ng-play :is(button, input, textarea, canvas, [role]):not([hidden], [role=status])",
    )].filter((e) => !e.getAttribute("aria-label") && !e.labels?.length && !e.innerText?.trim())
        .map((e) => e.outerHTML)""")
    assert unnamed == []


def test_dragging_keeps_up_with_the_screen(opened: Opened) -> None:
    """Many movements are drawn once, in the next frame, and no element is made for it.

    Counted in work, not by the clock: a busy machine would fail by no fault of the page.
    """
    page = opened.load()
    found = page.evaluate("""async () => {
        const { play } = document.querySelector(".ng-play");
        let made = 0, shown = 0;
        const watch = new MutationObserver((all) => all.forEach(({ addedNodes, target }) => {
            made += [...addedNodes].filter((node) => node.nodeType === 1).length;
        }));
        watch.observe(play.box, { childList: true, subtree: true });
        const show = play.showNext;
        play.showNext = function () { shown++; return show.call(this); };
        for (let i = 0; i < 20; i++) {
            play.temperature.input.value = i / 10;
            play.temperature.input.dispatchEvent(new Event("input"));
        }
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        return { made, shown };
    }""")
    assert found == {"made": 0, "shown": 1}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(opened: Opened, scheme: str) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    page = opened.load()
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(PROBE) == []


def test_without_javascript_the_page_still_reads(context: Any, folder: Path) -> None:
    bare = context.browser.new_context(java_script_enabled=False)
    page = bare.new_page()
    page.goto(f"file://{folder}/index.html")
    assert "nanogpt2.inference.engine" in page.inner_text("main")
    bare.close()


def test_a_folder_that_is_not_whole_is_said_so(context: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "web")
    (tmp_path / "web" / "model" / "final.0.js").unlink()
    opened = Opened(context, tmp_path / "web")
    opened.page.get_by_role("button").click()
    opened.page.wait_for_selector("text=could not be read")
    assert opened.page.get_by_role("button").is_enabled()
    opened.page.close()


def test_a_damaged_file_of_weights_is_said_so(context: Any, folder: Path, tmp_path: Path) -> None:
    """Half a script is no script: the browser loads it, and nothing comes of it."""
    shutil.copytree(folder, tmp_path / "web")
    weights = tmp_path / "web" / "model" / "final.0.js"
    weights.write_text(weights.read_text()[: weights.stat().st_size // 2])
    opened = Opened(context, tmp_path / "web")
    opened.page.get_by_role("button").click()
    opened.page.wait_for_selector("text=is damaged")
    assert opened.page.get_by_role("button").is_enabled()
    opened.page.close()


def test_what_was_typed_is_read_whatever_is_pressed_meanwhile(opened: Opened) -> None:
    page = opened.load()
    texts = page.evaluate("""async () => {
        const { play } = document.querySelector(".ng-play"), found = [];
        const write = (text) => { play.text.value = text; return play.typed(); };
        for (const press of [() => play.choose(0), () => play.step(), () => play.use("final")]) {
            write("The state");
            write("My own words");
            await press();
            while (play.running) await new Promise(requestAnimationFrame);
            found.push([play.text.value, play.engine.tokenizer.decode(play.ids)]);
        }
        return found;
    }""")
    for box, read in texts:
        assert box == read and box.startswith("My own words")
    assert len(texts[1][0]) > len(texts[0][0]), "a step was taken, after what was typed"


def test_texts_of_any_length_and_of_none(opened: Opened) -> None:
    page, said = opened.load(), opened.page.locator(".ng-status").first
    page.get_by_label("Your text").fill("a" * 130_000 + "acgt" * 30_000)
    opened.settle()
    assert "tokens are read: the context is full" in said.inner_text()
    page.get_by_role("listbox", name="Tokens by surprise").focus()
    page.set_viewport_size({"width": 360, "height": 800})
    page.keyboard.press("End")
    opened.settle()
    assert page.locator(".ng-row").first.evaluate("""(row) => {
        const [a, b] = [row, row.querySelector("[aria-selected=true]")].map(
            (e) => e.getBoundingClientRect());
        return a.top <= b.top && b.bottom <= a.bottom + 1;
    }""")
    page.get_by_label("Your text").fill("")
    opened.settle()
    assert said.inner_text() == "" and "NaN" not in page.inner_text("main")


def test_focus_stays_when_a_pressed_button_goes(opened: Opened) -> None:
    page = opened.load()
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    assert page.locator(".ng-status").first.inner_text() == "The model is loaded."
    page.get_by_label("training time").press("Home")
    page.get_by_role("button", name="Load this checkpoint").press("Enter")
    page.wait_for_function("document.activeElement.type === 'range'")
    page.get_by_role("button", name="Compare with counted").press("Enter")
    page.wait_for_function(
        "document.activeElement.tabIndex === 0 && document.activeElement !== document.body"
    )


def test_counted_pairs_are_the_same_in_the_page(opened: Opened, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT, prepend_bos=True)
    counted = bigram(count_pairs([ids], 300, 10_000), 200)
    for first in range(300):
        assert counted.probabilities(first).sum() == pytest.approx(1)
        assert counted.probabilities(first).min() > 0
    page = opened.load()
    got = page.evaluate(
        "async (ids) => (await (await nanogpt2.open('model')).bigram()).bits(ids)", ids
    )
    expected = [-np.log2(counted.probabilities(a)[b]) for a, b in zip(ids, ids[1:], strict=False)]
    np.testing.assert_allclose(got[1:], expected, rtol=1e-4)
    often = max(set(ids), key=ids.count)
    seen = count_pairs([ids], 300, 10_000)[often]
    assert seen[counted.probabilities(often).argmax()] == seen.max()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_to_the_nearest_of_each_rows_numbers(bits: int) -> None:
    weight = torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    numbers, scale = quantize(weight, bits)
    assert numbers.abs().max() == 2 ** (bits - 1) - 1
    error = (numbers * scale[:, None] - weight).abs()
    assert (error <= scale[:, None] * 0.5001).all() and (error[3] == 0).all()


def test_another_split_pattern_is_refused(tokenizer: Tokenizer) -> None:
    from nanogpt2.data.tokenizer import SPECIAL_TOKENS, _encoding

    other = _encoding(tokenizer.encoding._mergeable_ranks, r"\w+|\W", SPECIAL_TOKENS)
    with pytest.raises(UserError, match="this package's pattern"):
        page_tokenizer(Tokenizer(other))


def test_the_card_tells_what_was_measured(folder: Path) -> None:
    text = (folder / "model" / "card.js").read_text()
    card = json.loads(text.removeprefix('nanogpt2.bring("card", ').removesuffix(");\n"))
    assert card["measured_on"] == 0
    assert "not measured" in (folder / "model" / "README.md").read_text()


def test_the_books_part_opens_the_engine_and_the_model_of_the_book(
    context: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``_generated/play.md`` on a page that lies where the build puts it."""
    import shutil

    from scripts import pages

    static = tmp_path / "_static"
    shutil.copytree(str(web.PAGE), static / "play")
    shutil.copytree(folder / "model", static / "model")
    monkeypatch.setattr(pages, "BOOK", tmp_path)
    part = pages.play_part().removeprefix("```{raw} html\n").removesuffix("\n```")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{part}")
    opened = Opened(context, tmp_path / "book")
    assert "MB" in opened.page.get_by_role("button").inner_text()
    opened.load()
    assert opened.wrong == []
    opened.page.close()
