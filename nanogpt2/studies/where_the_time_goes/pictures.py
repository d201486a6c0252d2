"""Pictures of the chapter on where the time goes."""

from __future__ import annotations

from dataclasses import replace

from nanogpt2.depth import dial
from nanogpt2.lab.drawing import PAINT, drawing, rect, show, words
from nanogpt2.lab.page import Html
from nanogpt2.machines import GB, find_accelerator
from nanogpt2.memory import memory_per_rank
from nanogpt2.recipes import get_recipe
from nanogpt2.studies.where_the_time_goes.roofline import (
    RECORD_DEVICES,
    Part,
    record_step,
    step_parts,
)

LEFT, WIDE = 150, 250
NODE_TOKENS = 2**19 // RECORD_DEVICES


def _bars(parts: list[Part], most: float, told: str) -> tuple[str, str]:
    """A bar a part, in milliseconds; arithmetic and memory in two colours."""
    body, said = [words(4, 18, told, size=15)], []
    for i, part in enumerate(parts):
        y, ms = 32 + 30 * i, 1000 * part.seconds
        wide = min(WIDE, WIDE * ms / most)
        body.append(words(LEFT - 8, y + 17, part.name, "end", 14))
        body.append(rect(LEFT, y, max(1, wide), 22, PAINT[part.bound == "memory"]))
        body.append(words(LEFT + wide + 6, y + 17, f"{ms:,.0f} ms", size=14))
        said.append(f"{part.name} {ms:,.0f} ms ({part.bound})")
    y = 32 + 30 * len(parts) + 6
    for i, name in enumerate(("waits for arithmetic", "waits for memory")):
        body.append(rect(LEFT + 170 * i, y, 14, 14, PAINT[i]))
        body.append(words(LEFT + 170 * i + 20, y + 12, name, size=14))
    return drawing(body, y + 22), f"{told} {'; '.join(said)}."


def step_frame(depth: int, rows: int, precision: str) -> tuple[str, str]:
    """A step of 2^19 tokens on eight H100s by the roofline; a frame for ``explore``."""
    parts = step_parts(dial(depth).model, NODE_TOKENS, rows, precision)
    whole = sum(part.seconds for part in parts)
    flops = dial(depth).flops_per_token * NODE_TOKENS
    reached = flops / whole / parts[2].peak
    return _bars(parts, 650, f"{1000 * whole:,.0f} ms at the least: at most {reached:.0%} MFU.")


def attention_frame(windows: str, scores: str, length: int) -> tuple[str, str]:
    """The same step at depth 24 with rows of another length; a frame for ``explore``."""
    model = replace(dial(24).model, sequence_len=length, window_pattern=windows)
    parts = step_parts(model, NODE_TOKENS, max(1, 32768 // length), scores=scores)
    whole = sum(part.seconds for part in parts)
    told = f"attention {parts[2].seconds / whole:.0%} of {1000 * whole:,.0f} ms."
    longest = max(1000 * part.seconds for part in parts[:5])
    return _bars(parts[:5], max(900, longest), told)


def where_it_went(caption: str) -> Html:
    """The mean step of run 1 as one strip: what the roofline explains of it, and what not."""
    model, tokens, seconds = record_step()
    parts = step_parts(model, tokens)
    ideal = dial(recipe="run1").flops_per_token * tokens / parts[0].peak
    rest = seconds - sum(part.seconds for part in parts)
    pieces = [(part.name, part.seconds, PAINT[part.bound == "memory"]) for part in parts]
    pieces.append(("under the roofs", rest, "none"))
    body, names, said, y, last = list[str](), list[str](), list[str](), 8.0, 0.0
    for name, taken, fill in pieces:
        high = 400 * taken / seconds
        look = {"stroke": "currentColor", "stroke_opacity": ".5"}
        dashes = {"stroke_dasharray": "4 3"} if fill == "none" else {}
        body.append(rect(70, y, 110, high, fill, **look, **dashes))
        last = max(y + high / 2 + 5, last + 18)  # never closer than a line to the name above
        names.append(words(192, last, f"{name}: {1000 * taken:.0f} ms", size=15))
        said.append(f"{name} {1000 * taken:.0f} ms")
        y += high
    mark = 8 + 400 * ideal / seconds
    body.append(rect(48, 8, 6, mark - 8, PAINT[3]))
    body.append(words(40, 8 + (mark - 8) / 2, "MFU", "end", 15))
    body.append(words(40, 26 + (mark - 8) / 2, f"{ideal / seconds:.0%}", "end", 15))
    alt = (
        f"A strip of {1000 * seconds:.0f} ms, from above: {', '.join(said)}. Beside it a bar of "
        f"{1000 * ideal:.0f} ms: the model's FLOPs at the peak."
    )
    return show(drawing([*body, *names], 420), alt, caption)


def memory_frame(depth: int, rows: int, recompute: str) -> tuple[str, str]:
    """Bytes on each of eight H100s, by the planner's formulas; a frame for ``explore``."""
    recipe = get_recipe("run1")
    held = memory_per_rank(
        dial(depth, recipe).model, recipe, RECORD_DEVICES, rows, True, True, recompute == "on"
    )
    card = find_accelerator("H100")
    assert card is not None
    room = card.memory_bytes / GB
    names = ("parameters", "gradients", "optimizer", "activations")
    body, at, said = [], 20.0, []
    scale = 440 / (1.6 * room)
    for i, name in enumerate(names):
        size = getattr(held, name) / GB
        wide = min(scale * size, 460 - at)
        body.append(rect(at, 34, max(0, wide), 46, PAINT[i]))
        body.append(rect(20, 96 + 24 * i, 14, 14, PAINT[i]))
        body.append(words(42, 108 + 24 * i, f"{name}: {size:.1f} GB", size=15))
        said.append(f"{name} {size:.1f}")
        at += wide
    end = 20 + scale * room
    body.append(rect(end, 26, 2, 62, "currentColor"))
    body.append(words(end + 6, 24, f"{room:.0f} GB", size=15))
    peak = held.peak / GB
    verdict = "fits" if held.peak < card.memory_bytes else "does not fit"
    told = f"{peak:.1f} GB at the peak: {verdict}"
    body.append(words(20, 18, told))
    return drawing(body, 190), f"{told}. In GB: {', '.join(said)}."
