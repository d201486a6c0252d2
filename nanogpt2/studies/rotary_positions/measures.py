"""Pictures and measurements of the chapter on rotary positions."""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanogpt2.errors import run_command
from nanogpt2.lab.patching import patched
from nanogpt2.lab.records import record
from nanogpt2.lab.small_data import SmallData, small_data
from nanogpt2.lab.small_run import as_record, compare, small_config, small_runs
from nanogpt2.lab.style import COLOURS, figure, style
from nanogpt2.lab.timing import median_seconds
from nanogpt2.model import attention
from nanogpt2.model.gpt import GPT
from nanogpt2.model.rope import rope_tables, rotate

CLOCKS, BASE = 6, 10_000.0
FACE = 52
"""radius of a clock face, in the picture's units"""


def phase_clock(key_position: int, distance: int) -> tuple[str, str]:
    """Six pairs of channels as clocks, one hand for a key and one for a query after it.

    Returns an SVG and its alt text; a frame for ``explore``.
    """
    query_position = key_position + distance
    faces, gaps = [], []
    for pair in range(CLOCKS):
        frequency = BASE ** (-pair / CLOCKS)
        gaps.append(distance * frequency % (2 * math.pi))
        x, y = 80 + 160 * (pair % 3), 66 + 156 * (pair // 3)
        faces.append(_face(x, y, key_position * frequency, query_position * frequency))
        faces.append(
            f'<text x="{x}" y="{y + FACE + 22}" text-anchor="middle" font-size="15" '
            f'fill="currentColor">{frequency:.3g} a step</text>'
        )
    score = _score(query_position, key_position)
    told = (
        f"key at {key_position:,} (dashed), query at {query_position:,} (solid): score {score:.3f}"
    )
    drawing = (
        f'<svg viewBox="0 0 480 336" width="480" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(faces)}"
        f'<text x="240" y="326" text-anchor="middle" font-size="17" fill="currentColor">{told}'
        "</text></svg>"
    )
    apart = ", ".join(f"{gap:.2f}" for gap in gaps)
    alt = (
        f"Six clocks from fast to slow. Key at position {key_position}, query at {query_position}: "
        f"their hands are {apart} radians apart, and the score is {score:.3f}."
    )
    return drawing, alt


def _face(x: float, y: float, key_angle: float, query_angle: float) -> str:
    def end(angle: float, length: float) -> tuple[float, float]:
        # from twelve o'clock; minus theta, the way the package turns
        return x + length * math.sin(-angle), y - length * math.cos(-angle)

    (kx, ky), (qx, qy) = end(key_angle, FACE - 6), end(query_angle, FACE - 6)
    (ax, ay), (bx, by) = end(key_angle, FACE / 2), end(query_angle, FACE / 2)
    wide = int((query_angle - key_angle) % (2 * math.pi) > math.pi)
    wedge = (
        f'<path d="M{x} {y}L{ax:.1f} {ay:.1f}A{FACE / 2} {FACE / 2} 0 {wide} 0 {bx:.1f} {by:.1f}Z" '
        'fill="var(--ng-c2)" fill-opacity=".3"/>'
    )
    face = (
        f'<circle cx="{x}" cy="{y}" r="{FACE}" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<path d="M{x} {y - FACE}v7" stroke="currentColor" opacity=".6"/>'
    )
    key = (
        f'<path d="M{x} {y}L{kx:.1f} {ky:.1f}" stroke="var(--ng-c1)" stroke-width="3.5" '
        'stroke-dasharray="6 4"/>'
    )
    query = (
        f'<path d="M{x} {y}L{qx:.1f} {qy:.1f}" stroke="var(--ng-c0)" stroke-width="3.5" '
        'stroke-linecap="round"/>'
    )
    return face + wedge + key + query


def _score(query_position: int, key_position: int) -> float:
    """q . k of two fixed vectors at these positions, by the package's own rotation."""
    generator = torch.Generator().manual_seed(4)
    q, k = (torch.randn(1, 1, 1, 2 * CLOCKS, generator=generator) for _ in range(2))
    cos, sin = rope_tables(query_position + 1, 2 * CLOCKS, BASE, dtype=torch.float32)
    turned = [
        rotate(v, cos[p : p + 1], sin[p : p + 1])
        for v, p in ((q, query_position), (k, key_position))
    ]
    return float((turned[0] * turned[1]).sum())


def likeness(base: float, head_dim: int = 128, length: int = 2048) -> Tensor:
    """(length,) score of a vector with its own copy d positions back, 1 at d = 0.

    The vector has the same length in every pair: the mean over pairs of cos(d theta).
    """
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequency).cos().mean(1)


def unfinished_turns(base: float, head_dim: int = 128, length: int = 2048) -> int:
    """How many pairs turn less than once over ``length`` positions."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return int((frequency * length < 2 * math.pi).sum())


def likeness_frame(base: float) -> tuple[Figure, str]:
    """``likeness`` drawn for one base; a frame for ``explore``."""
    values, slow = likeness(base), unfinished_turns(base)
    fig, axes = figure(height=2.7)
    with style():
        # dense near zero, where the curve is steep, and thinner further out
        at = torch.cat((torch.arange(0, 128, 2), torch.arange(128, 2048, 8)))
        axes.plot(at.numpy(), values[at].numpy())
        axes.axhline(0, color=COLOURS[5], linewidth=1)
        axes.set(ylim=(-0.3, 1.05), xlabel="distance in tokens", ylabel="likeness")
        axes.set_title(f"{slow} of 64 pairs turn less than once in 2,048 positions")
    near, far = float(values[:64].mean()), float(values[1024:].mean())
    alt = (
        f"Base {base:,.0f}: likeness falls from 1 at distance 0; it averages {near:.2f} over the "
        f"first 64 positions and {far:.2f} beyond 1,024. {slow} of 64 pairs turn less than once."
    )
    return fig, alt


def score_errors(
    distance: int = 10, positions: int = 8192, head_dim: int = 128
) -> tuple[list[int], dict[str, list[float]]]:
    """Error of one score with tables rounded to bf16, at ever later positions.

    Returns the key's positions, and by name the errors relative to the two lengths.
    """
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 1, head_dim, generator=generator).double() for _ in range(2))
    frequency = BASE ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    angle = torch.outer(torch.arange(positions).double(), frequency)
    exact = (angle.cos(), angle.sin())
    rounded = tuple(t.double() for t in rope_tables(positions, head_dim, BASE))
    starts = list(range(0, positions - distance, 37))

    def score(tables: tuple[Tensor, ...], at: int) -> float:
        turned = [
            rotate(v, *(table[p : p + 1] for table in tables))
            for v, p in ((q, at + distance), (k, at))
        ]
        return float((turned[0] * turned[1]).sum())

    scale = float(q.norm() * k.norm())
    errors = [(score(rounded, at) - score(exact, at)) / scale for at in starts]
    return starts, {"tables in bf16": errors}


def time_rotation(width: int, tokens: int = 1024, repeats: int = 5) -> dict[str, float]:
    """Median seconds of turning q and k of one layer, and of that layer's four projections."""
    x = torch.randn(1, tokens, width)
    q = x.view(1, tokens, -1, 128) if width % 128 == 0 else x.view(1, tokens, 1, width)
    weight = torch.randn(width, width) / math.sqrt(width)
    tables = rope_tables(tokens, q.size(-1), BASE, dtype=torch.float32)
    parts: dict[str, Callable[[], Any]] = {
        "turning queries and keys": lambda: (rotate(q, *tables), rotate(q, *tables)),
        "projections q, k, v, out": lambda: [x @ weight for _ in range(4)],
    }
    return {name: median_seconds(run, repeats) for name, run in parts.items()}


def verdict(near: float, far: float, margin: float = 0.01) -> int:
    """0, 1 or 2: with distances never trained better, about as well (within 1%), or worse."""
    change = far / near - 1
    return 0 if change < -margin else 2 if change > margin else 1


def rotate_neighbours(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The other layout: pairs (2i, 2i + 1), as in RoFormer's own equations."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    x1, x2 = x_BTHD[..., 0::2], x_BTHD[..., 1::2]
    return torch.stack((x1 * cos + x2 * sin, x2 * cos - x1 * sin), -1).flatten(-2).to(x_BTHD.dtype)


@contextmanager
def _rotating(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Models turn by ``function`` within the block, and by the package's ``rotate`` after it."""
    with patched(attention, "rotate", function):
        yield


@contextmanager
def wrong_pairs() -> Iterator[None]:
    """Failure: neighbours are paired where the model means halves."""
    with _rotating(rotate_neighbours):
        yield


@contextmanager
def keys_unturned() -> Iterator[None]:
    """Failure: queries are rotated and keys are forgotten."""
    is_query = itertools.cycle((True, False))  # the model turns q, then k, in every layer
    with _rotating(lambda x, cos, sin: rotate(x, cos, sin) if next(is_query) else x):
        yield


@contextmanager
def queries_late(by: int = 1) -> Iterator[None]:
    """Failure: queries believe that they stand ``by`` positions further on than they do."""
    is_query = itertools.cycle((True, False))

    def off(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if not next(is_query):
            return rotate(x, cos, sin)
        # one more turn by the angle of position ``by``: row ``by`` of the same table
        turned = rotate(x, cos, sin)
        return rotate(turned, cos[by : by + 1], sin[by : by + 1])

    with _rotating(off):
        yield


def bpb_by_position(
    model: GPT,
    data: SmallData,
    length: int,
    bucket: int = 64,
    rows: int = 48,
    stretch: bool = False,
) -> dict[int, float]:
    """Held-out bits per byte in stretches of positions: first position -> bits per byte.

    Args:
        length: tokens read at once; may be beyond the model's T.
        stretch: let the layers with a full window see all of it; otherwise every window stays as
            it was in training.
    """
    windows = [block.attn.window for block in _blocks(model)]
    inputs, targets = data.validation(rows, length)
    try:
        for block, window in zip(_blocks(model), windows, strict=True):
            if stretch and window >= model.config.sequence_len - 1:
                block.attn.window = length
        with torch.no_grad():
            nats = torch.cat(
                [
                    model(x, y, loss_reduction="none").view(len(x), -1)
                    for x, y in zip(inputs.split(8), targets.split(8), strict=True)
                ]
            )
    finally:
        for block, window in zip(_blocks(model), windows, strict=True):
            block.attn.window = window
    sizes = torch.as_tensor(data.tokenizer.token_bytes)[targets]
    nats = nats.double() * (sizes > 0)
    found = {}
    for start in range(0, length, bucket):
        part = slice(start, start + bucket)
        found[start] = float(nats[:, part].sum() / (math.log(2) * sizes[:, part].sum()))
    return found


def reading_further(seeds: tuple[int, ...], narrow: dict[str, Any], **settings: Any) -> Any:
    """Read four times the trained length, with every window as trained, and with all of it seen.

    Every layer has the full window, so that all of them meet distances that were never trained.
    Returns, by name, the bits per byte of each stretch of positions, means over ``seeds``.
    """
    config = small_config(**narrow, window_pattern="L")
    data, found = small_data(config.vocab_size), {}
    runs = small_runs(config, seeds, **settings)
    for name, stretch in (("windows as trained", False), ("windows stretched", True)):
        each = [
            bpb_by_position(run.model(), data, 4 * config.sequence_len, stretch=stretch)
            for run in runs
        ]
        found[name] = {at: statistics.fmean(one[at] for one in each) for at in each[0]}
    return found


def _blocks(model: GPT) -> Any:
    return model.transformer["h"]


def record_comparison(
    steps: int = 320,
    depth: int = 4,
    seeds: tuple[int, ...] = (0, 1, 2),
    width: int | None = None,
    device: str = "cpu",
) -> str:
    """Train learned and rotary positions over ``seeds``, and record what the chapter quotes.

    ``width`` takes heads of 64 in that width in place of the book's proportions.
    """
    narrow: dict[str, Any] = {"depth": depth}
    if width is not None:
        narrow |= {"n_embd": width, "n_head": width // 64, "n_kv_head": width // 64}
    settings: dict[str, Any] = {"steps": steps, "device": device}
    runs = {
        kind: small_runs(small_config(positions=kind, **narrow), seeds, **settings)
        for kind in ("learned", "rope")
    }
    ends = {kind: [run.bpb for run in found] for kind, found in runs.items()}
    found = compare(ends["learned"], ends["rope"])
    named = {f"bpb_{kind}_seed{run.seed}": run for kind, group in runs.items() for run in group}
    curve = [
        {"step": point["step"], "tokens": point["tokens"]}
        | {name: run.curve[i]["bpb"] for name, run in named.items()}
        for i, point in enumerate(runs["rope"][0].curve)
    ]
    first, model = as_record(runs["rope"][0]), runs["rope"][0].config
    options = f"--depth {depth} --steps {steps} --seeds {' '.join(map(str, seeds))}"
    options += f" --width {width}" if width else ""
    options += f" --device {device}" if device != "cpu" else ""
    path = record(
        f"positions-depth{depth}" + (f"-width{width}" if width else ""),
        command=f"python -m nanogpt2.lab.rotary {options}",
        configuration={**first["configuration"], "positions": sorted(runs), "seeds": list(seeds)},
        seed=seeds[0],
        tokens=first["tokens"],
        seconds=sum(run.seconds for group in runs.values() for run in group),
        curve=curve,
        results={
            "bpb": ends,
            "learned_minus_rope_bpb": found.difference,
            "spread_bpb": found.spread,
            "distinguishable": found.distinguishable,
            "bpb_by_position": reading_further(seeds, narrow, **settings),
        },
        note=f"Learned against rotary positions: {depth} layers, {model.n_embd} wide, heads of "
        f"{model.head_dim}, rows of {model.sequence_len} tokens of the embedded corpus, "
        f"{len(seeds)} seeds each; tokens are those of one run, seconds those of all.",
    )
    return str(path)


def main() -> None:
    """Command line of the recorded comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.lab.rotary", description="Record learned against rotary positions."
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, help="with heads of 64; 24 or 64 a layer without it")
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    at = parser.parse_args()
    print(record_comparison(at.steps, at.depth, tuple(at.seeds), at.width, at.device))


if __name__ == "__main__":
    run_command(main)
