"""A page with the engine, opened from a file in headless Chromium, with every host shut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.export.web import ENGINE
from nanogpt2.export.web_format import bring, page_config, page_tokenizer, write_weights
from nanogpt2.model.gpt import GPT
from tests.evals.conftest import small_bundle  # noqa: F401
from tests.training.conftest import tiny_data  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PAGE = resources.files("nanogpt2.export") / "page"
TEXT = (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="package")  # Playwright runs once in a process: it ends before others begin
def context() -> Iterator[Any]:
    """One for all pages: what a page stores, another may find."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield shut(browser)
        browser.close()


def shut(browser: Any) -> Any:
    """A context of the browser that remembers nothing yet, and reaches files alone."""
    context = browser.new_context()
    local = ("file:", "data:", "blob:")
    context.route(lambda url: not url.startswith(local), lambda route: route.abort())
    return context


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """300 tokens, learned from the text beside this file."""
    return Tokenizer.train([TEXT], 300)


def shaken(model: GPT, seed: int = 0) -> GPT:
    """Every parameter random: at the start, zero matrices and unit gains would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = weight.new_ones(()) if "norm" in name and "weight" in name else 0.0
            spread = 0.3 if weight.ndim < 2 else 2.0 / weight.size(1) ** 0.5
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(around + spread * noise)
    return model.eval()


def open_page(context: Any, tokenizer: Tokenizer, folder: Path, model: GPT, bits: int = 32) -> Any:
    """A page whose ``engine`` holds ``model``, its weights in ``folder``."""
    sets = {"final": write_weights(model, folder, "final", bits)}
    card = {"config": page_config(model.config), "tokenizer": page_tokenizer(tokenizer)}
    bring(folder, "card", {**card, "sets": sets})
    scripts = "".join(f'<script src="{PAGE}/{name}.js"></script>' for name in ENGINE)
    (folder / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{scripts}")
    page = context.new_page()
    page.goto(f"file://{folder}/page.html")
    page.evaluate("""async () => {
        globalThis.engine = await nanogpt2.open(".");
        await engine.load();
    }""")
    return page


@pytest.fixture
def opened(context: Any, tokenizer: Tokenizer, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``opened(model, bits)``: ``open_page``, closed in the end."""
    pages = []

    def opened(model: GPT, bits: int = 32) -> Any:
        pages.append(open_page(context, tokenizer, tmp_path, model, bits))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()
