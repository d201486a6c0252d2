"""Panels in Chromium, from a file: a bet first, nothing loaded unasked, the numbers right."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.export.web_format import bring, page_config, page_tokenizer, write_weights
from nanogpt2.lab.panel import MEGABYTES, PANELS, panel
from nanogpt2.model.gpt import GPT
from tests.export.conftest import PAGE, shaken

CONFIG = GPTConfig(
    sequence_len=512, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=64, rope_base=1e4
)
CHOICES = ["none", "some", "all"]


@pytest.fixture(scope="module")
def model() -> GPT:
    return shaken(GPT(CONFIG))


@pytest.fixture
def shown(
    context: Any,
    tokenizer: Tokenizer,
    model: GPT,
    tmp_path: Path,
) -> Iterator[Callable[..., Any]]:
    """``shown(name, megabytes)``: a chapter's page with that panel, and all that it asked for."""
    static = tmp_path / "_static"
    shutil.copytree(str(PAGE), static / "play")
    (static / "model").mkdir()
    sets = {"final": write_weights(model, static / "model", "final", 32)}
    card = {"config": page_config(model.config), "tokenizer": page_tokenizer(tokenizer)}
    bring(static / "model", "card", {**card, "sets": sets})
    (tmp_path / "chapters").mkdir()
    pages = []

    def shown(name: str, megabytes: str = "1.0") -> tuple[Any, list[str]]:
        html = panel(name, f"{name} in {tmp_path.name}?", CHOICES).html
        file = tmp_path / "chapters" / f"{name}.html"
        file.write_text(
            '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width='
            f'device-width">{html.replace(MEGABYTES, megabytes)}'
        )
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page, asked

    yield shown
    for page in pages:
        page.close()


def opened(page: Any) -> Any:
    """The panel, after a bet by keys and the button."""
    page.locator(".ng-predict input").first.focus()
    page.keyboard.press("Space")
    page.locator(".ng-commit").press("Enter")
    page.locator(".ng-panel button").press("Enter")
    box = page.locator(".ng-panel")
    box.get_by_text("Measured: ").wait_for()
    return box


def test_a_bet_comes_first_and_nothing_is_loaded_unasked(shown: Callable[..., Any]) -> None:
    page, asked = shown("rotary")
    button = page.locator(".ng-panel button")
    assert button.is_disabled() and "Commit to an answer first" in page.inner_text("body")
    page.locator(".ng-predict input").first.check()
    page.locator(".ng-commit").click()
    assert button.is_enabled() and button.inner_text() == "Load the model (1.0 MB)"
    assert len(asked) == 1  # the page itself
    button.click()
    page.get_by_text("Measured: ").wait_for()
    assert any("/_static/model/final.0.js" in url for url in asked)


def bits(model: GPT, ids: list[int]) -> float:
    x = torch.tensor([ids])
    with torch.no_grad():
        logits = model(x)[0, :-1, : model.config.vocab_size].float()
    return float(functional.cross_entropy(logits, x[0, 1:])) / math.log(2)


def test_it_says_what_the_package_computes(
    shown: Callable[..., Any], model: GPT, tokenizer: Tokenizer
) -> None:
    page, _ = shown("norms")
    box = opened(page)
    text = box.locator("textarea").input_value()
    changed = GPT(replace(CONFIG, qk_norm=False))
    changed.load_state_dict(model.state_dict())
    ids = tokenizer.encode(text, prepend_bos=True)
    expected = [bits(one.eval(), ids) for one in (model, changed)]
    said = re.findall(r"([\d.]+) (?:bits a token as trained|so changed)", box.inner_text())
    assert [float(one) for one in said[:2]] == pytest.approx(expected, abs=0.006)
    box.locator("select").select_option(label="on, as trained")
    page.get_by_text(f"{said[0]} so changed").wait_for()


def test_each_value_table_can_be_emptied(
    shown: Callable[..., Any], model: GPT, tokenizer: Tokenizer
) -> None:
    box = opened(shown("values")[0])
    choices = box.locator("select")
    tables = [i for i in range(CONFIG.n_layer) if CONFIG.has_value_embedding(i)]
    assert choices.locator("option").all_inner_texts() == [
        "none", *(f"layer {i + 1}'s" for i in tables), "all"
    ]  # fmt: skip
    without = GPT(CONFIG)
    without.load_state_dict(model.state_dict())
    with torch.no_grad():
        without.value_embeds[str(tables[0])].weight.zero_()
    ids = tokenizer.encode(box.locator("textarea").input_value(), prepend_bos=True)
    box.get_by_label("x0, the way back").press("ArrowRight")  # off zero, up to as trained
    for _ in range(3):
        box.get_by_label("x0, the way back").press("ArrowRight")
    choices.select_option(label=f"layer {tables[0] + 1}'s")
    box.get_by_text(f"{bits(without.eval(), ids):.2f} so changed").wait_for()


def test_tokens_are_split_while_one_types(shown: Callable[..., Any], tokenizer: Tokenizer) -> None:
    page, asked = shown("tokens")
    box = opened(page)
    box.locator("textarea").fill("naïve 🙂 1848")
    count = len(tokenizer.encode("naïve 🙂 1848"))
    box.get_by_text(f"{count} tokens for 16 bytes").wait_for()
    assert box.locator("[role=option]").count() == count
    assert not any("final" in url for url in asked)  # the card is enough


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_measures_and_fits_a_phone(shown: Callable[..., Any], name: str) -> None:
    page, _ = shown(name)
    page.set_viewport_size({"width": 400, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    said = opened(page).locator(".ng-said").inner_text()
    assert re.match(f"Measured: ({'|'.join(CHOICES)})\\. You predicted", said)
    status = page.locator(".ng-play [role=status]").inner_text()
    assert re.search(r"\d|first guess", status) and "NaN" not in status, status
    assert page.evaluate("document.documentElement.scrollWidth") <= 400 and not wrong


def test_without_a_model_it_says_so(shown: Callable[..., Any]) -> None:
    page, asked = shown("windows", "")
    assert "built without its model" in page.inner_text("body")
    assert not page.locator(".ng-panel button").is_visible()
    page, _ = shown("windows", MEGABYTES)  # a notebook, which no build has finished
    assert "pages of the built book" in page.inner_text("body")


def test_a_panel_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no panel is called 'speed'"):
        panel("speed", "Fast?", ["yes", "no"])
