"""A folder to open in a browser: the model with a page to play with it, nothing else needed.

``index.html`` opens from the disk, without a server or a network. The weights are whole numbers of
8 bits; what that costs in bits per byte is measured where the run's held-out text is at hand, and
stands in ``model/README.md``. Chapter: speedrun.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.held_out import held_out_batches
from nanogpt2.export.card import table
from nanogpt2.export.trained import Trained
from nanogpt2.export.web_format import (
    bring,
    page_config,
    page_tokenizer,
    rounded,
    write_weights,
)

PAGE = resources.files("nanogpt2.export") / "page"
ENGINE = ("tensors", "tokenizer", "sampling", "model", "session", "worker", "engine")
SCRIPTS = (*ENGINE, "baseline", "views", "play")
"""in the order in which a page adds them"""
BITS = 8
MEASURED = 32_768
"""held-out tokens on which the rounding is measured"""


def write(trained: Trained, folder: Path) -> None:
    """Fill ``folder``: ``index.html``, the engine in ``page/``, the weights in ``model/``."""
    name = trained.run.config.get("name", "model") if trained.run else "model"
    write_model(folder / "model", {"final": (trained, BITS)}, title=f"A {name} model")
    write_page(folder)


def write_page(folder: Path) -> None:
    """``index.html`` and the scripts it adds, beside ``model/``, which is there."""
    (folder / "page").mkdir()
    for file in (*(f"{name}.js" for name in SCRIPTS), "play.css"):
        shutil.copyfile(str(PAGE / file), folder / "page" / file)
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    page = page.replace("<!-- scripts -->", script_tags("page"))
    page = page.replace("MEGABYTES", megabytes(folder / "model"))
    (folder / "index.html").write_text(page, encoding="utf-8")


def script_tags(folder: str) -> str:
    """What adds the engine and the page's scripts, which lie in ``folder``."""
    return "\n".join(f'<script defer src="{folder}/{name}.js"></script>' for name in SCRIPTS)


def megabytes(model: Path) -> str:
    """What a reader is told before the weights in ``model`` are loaded; "" where there are none."""
    size = sum(path.stat().st_size for path in model.glob("final.*.js"))
    return f"{size / 1e6:.1f}" if size else ""


def held_out_text(trained: Trained, tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of the text that its run held out; none where it is no longer there."""
    run = trained.run
    if run is None:
        return []
    try:
        names = [name for name, _ in run.config["identity"]["text"]["held_out"]]
        shards = [Path(run.config["data_dir"]) / name for name in names]
        batches = held_out_batches(
            shards, trained.tokenizer, tokens, 8, trained.model.config.sequence_len
        )
        return list(batches)
    except (KeyError, TypeError, ValueError, UserError):
        return []


def write_model(
    folder: Path,
    sets: dict[str, tuple[Trained, int]],
    title: str,
    about: Sequence[str] = (),
    tokens: int = MEASURED,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write weights and card into ``folder``; returns the facts of the card.

    Args:
        folder: where to; made if need be.
        sets: name -> a model and the bits of its numbers; "final" is the one a page begins with.
        title: of the card.
        about: more paragraphs for the card's text.
        tokens: held-out tokens to measure on.
        more: more for ``card.js``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = sets["final"][0]
    batches = held_out_text(final, tokens)
    card_sets, facts = {}, {}
    for name, (trained, bits) in sets.items():
        card_sets[name] = write_weights(trained.model, folder, name, bits)
        facts[name] = {"bits": bits, "megabytes": round(card_sets[name]["bytes"] / 1e6, 1)}
        if batches:
            sizes, whole = final.tokenizer.token_bytes, rounded(trained.model, bits)
            facts[name]["bpb"] = bits_per_byte(trained.model, batches, sizes)
            facts[name]["bpb_rounded"] = bits_per_byte(whole, batches, sizes)
    card = {
        "title": title,
        "parameters": final.model.parameter_counts()["total"],
        "measured_on": sum(targets.numel() for _, targets in batches),
        "facts": facts,
        "config": page_config(final.model.config),
        "tokenizer": page_tokenizer(final.tokenizer),
        "sets": card_sets,
        **(more or {}),
    }
    bring(folder, "card", card)
    (folder / "README.md").write_text(card_text(final, card, about), encoding="utf-8")
    return card


def card_text(trained: Trained, card: dict[str, Any], about: Sequence[str]) -> str:
    """The model card: what it is, what it read, how well it does, and what the rounding costs."""
    lines = [f"# {card['title']}", "", *(f"{text}\n" for text in about)]
    lines += [
        "A language model that continues text; it knows little, invents facts, and repeats what "
        "its text says of people: use it to look inside.",
        "",
        *table(trained),
        "",
    ]
    lines += ["| weights | bits | MB | bits per byte, as trained | as rounded here | cost |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, fact in card["facts"].items():
        if "bpb" in fact:
            cost = fact["bpb_rounded"] - fact["bpb"]
            cells = f"{fact['bpb']:.4f} | {fact['bpb_rounded']:.4f} | {cost:+.4f}"
        else:
            cells = "not measured | | "
        lines.append(f"| {name} | {fact['bits']} | {fact['megabytes']} | {cells} |")
    on = f"the first {card['measured_on']:,} tokens of the run's held-out text"
    lines += ["", f"Measured on {on}." if card["measured_on"] else "No held-out text was at hand."]
    return "\n".join([*lines, ""])
