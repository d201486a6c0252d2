"""Pictures and measurements of the chapter on Muon and the Polar Express."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from nanogpt2.lab.page import Html
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import SmallRun, bits_per_byte
from nanogpt2.lab.style import COLOURS, INK, figure, show, style
from nanogpt2.lab.timing import median_seconds
from nanogpt2.model.gpt import GPT, parameter_kind
from nanogpt2.optim.adamw import adamw_scalars
from nanogpt2.optim.fast import Steps
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.muon import neuron_axis, variance_scale
from nanogpt2.optim.polar_express import COEFFICIENTS, polar_express
from nanogpt2.recipes import get_recipe

Triples = Sequence[Sequence[float]]
SAFETY = 1.02
"""what divides x in the first four of the package's polynomials"""
JORDAN = ((3.4445, -4.775, 2.0315),) * 5
NEWTON_SCHULZ = ((15 / 8, -10 / 8, 3 / 8),) * 5


def ellipse_frame(stretch: float, steps: int) -> tuple[str, str]:
    """The image of the unit circle under a 2 x 2 gradient after ``steps`` steps; for ``explore``.

    ``stretch`` is the gradient's condition number. Returns an SVG and its alt text.
    """
    u, v = _turn(0.6), _turn(-0.35)
    g = u @ torch.diag(torch.tensor([1.0, 1 / stretch], dtype=torch.float64)) @ v.T
    x = polar_express(g[None], iterations=steps, dtype=torch.float64)[0]
    long, short = (float(s) for s in torch.linalg.svdvals(x))
    size, middle = 118, (240, 146)
    angles = torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64)
    rim = x @ torch.stack((angles.cos(), angles.sin()))
    at = [(middle[0] + size * float(a), middle[1] - size * float(b)) for a, b in rim.T]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at) + "Z"
    arms = ""
    for axis, colour, dash in ((0, 0, ""), (1, 1, ' stroke-dasharray="7 4"')):
        end = x @ v[:, axis]
        ex, ey = middle[0] + size * float(end[0]), middle[1] - size * float(end[1])
        arms += (
            f'<path d="M{middle[0]} {middle[1]}L{ex:.1f} {ey:.1f}" stroke="var(--ng-c{colour})" '
            f'stroke-width="4" stroke-linecap="round"{dash}/>'
        )
    told = f"singular values {long:.3f} and {_small(short)}, ratio {_small(long / short)}"
    drawing = (
        '<svg viewBox="0 0 480 316" width="480" xmlns="http://www.w3.org/2000/svg">'
        f'<circle cx="{middle[0]}" cy="{middle[1]}" r="{size}" fill="none" stroke="currentColor" '
        'stroke-dasharray="2 5" opacity=".7"/>'
        f'<path d="{path}" fill="var(--ng-c2)" fill-opacity=".18" stroke="var(--ng-c2)" '
        f'stroke-width="2.5"/>{arms}'
        f'<text x="240" y="304" text-anchor="middle" font-size="17" fill="currentColor">{told}'
        "</text></svg>"
    )
    shape = (
        "nearly a circle"
        if short > 0.6 * long
        else "a thin ellipse"
        if short < 0.2 * long
        else "an ellipse"
    )
    return drawing, f"After {steps} steps the unit circle has become {shape}: {told}."


def _turn(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def _small(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def mapped(values: Tensor, coefficients: Triples) -> Tensor:
    """Singular ``values`` after one polynomial a s + b s^3 + c s^5 for each triple, in turn."""
    for a, b, c in coefficients:
        values = a * values + b * values**3 + c * values**5
    return values


def equioscillation(coefficients: Sequence[float], points: Sequence[float]) -> Html:
    """One polynomial on [first point, last point], its four extreme points marked."""
    low, high = points[0], points[-1]
    s = torch.linspace(0, high * 1.02, 300, dtype=torch.float64)
    marks = torch.tensor(list(points), dtype=torch.float64)
    error = float((1 - mapped(marks, [coefficients])).abs().max())
    fig, axes = figure(height=2.8)
    with style():
        for level in (1 - error, 1 + error):
            axes.axhline(level, color=COLOURS[5], linewidth=1.2, linestyle="--")
        axes.axhline(1, color=INK, linewidth=1)
        axes.plot(s.numpy(), mapped(s, [coefficients]).numpy(), color=COLOURS[0])
        axes.plot(marks.numpy(), mapped(marks, [coefficients]).numpy(), "o", color=COLOURS[1])
        axes.set(xlabel="singular value before", ylabel="after", ylim=(-0.05, 2.15))
    alt = (
        f"An odd polynomial rises from zero, overshoots 1, dips below it and rises again. At the "
        f"four points {', '.join(f'{p:.3g}' for p in points)} it is off by exactly {error:.4f}, "
        "in turn below and above."
    )
    return show(fig, alt, f"The best quintic on [{low:g}, {high:g}]: four errors of equal size.")


def race_frame(steps: int) -> tuple[Figure, str]:
    """Where three iterations have carried each singular value after ``steps``; for ``explore``."""
    s = torch.logspace(-4, 0, 320, dtype=torch.float64)
    runs = {
        "Newton-Schulz": (NEWTON_SCHULZ, s),
        "Muon of 2024": (JORDAN, s),
        "Polar Express": (COEFFICIENTS, s / SAFETY),
    }
    fig, axes = figure(height=2.9)
    reached = {}
    with style():
        axes.axhline(1, color=INK, linewidth=1)
        for name, (coefficients, start) in runs.items():
            y = mapped(start, coefficients[:steps])
            axes.plot(s.numpy(), y.numpy(), label=name)
            reached[name] = [float(y[i]) for i in (0, 106, 213)]
        axes.set(xscale="log", ylim=(0, 2.1), ylabel="after")
        axes.set_xlabel("singular value before, as a part of the norm")
        fig.legend(loc="outside upper left", ncols=3)
    known = "; ".join(
        f"{name}: " + ", ".join(f"{value:.2g}" for value in ys) for name, ys in reached.items()
    )
    alt = f"Where 0.0001, 0.002 and 0.05 stand after {steps} steps. {known}."
    return fig, alt


def spread_matrix(rows: int = 64, cols: int = 128, decades: float = 4.0) -> tuple[Tensor, ...]:
    """Factors U (rows, rows), s (rows), V^T (rows, cols), float64; s falls over ``decades``."""
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(rows, cols, dtype=torch.float64, generator=generator)
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    return u, torch.logspace(0, -decades, rows, dtype=torch.float64), vt


def precision_frame(steps: int, precision: str) -> tuple[Figure, str]:
    """Each direction of one matrix before and after, computed in a precision; for ``explore``."""
    u, s, vt = spread_matrix()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    g = ((u * s) @ vt).float()[None]
    x = polar_express(g, iterations=steps, dtype=dtype)[0].double()
    start = s / (SAFETY * s.norm())
    kept = (u * (x @ vt.T)).sum(0)  # u_i . X v_i: how much of each direction came through
    exact = mapped(start, COEFFICIENTS[:steps])
    off = (kept - exact).abs() / exact.abs().clamp_min(1e-9)
    fig, axes = figure(height=3.0)
    with style():
        axes.axhline(1, color=INK, linewidth=1)
        axes.plot(start.numpy(), exact.numpy(), color=COLOURS[0], label="exact")
        axes.plot(
            start.numpy(),
            kept.abs().numpy(),
            linestyle="none",
            marker="o",
            markersize=3.5,
            color=COLOURS[1],
            label=precision,
        )
        axes.set(xscale="log", yscale="log", ylim=(3e-6, 3), ylabel="after")
        axes.set_xlabel("singular value before, as a part of the norm")
        fig.legend(loc="outside upper left", ncols=2)
    lost = int((off > 0.25).sum())
    alt = (
        f"{precision}, {steps} steps: of {len(s)} directions, {lost} are more than a quarter off "
        f"the exact curve; the smallest singular value has become {float(kept.abs()[-1]):.2g}."
    )
    return fig, alt


def gradients(model: GPT, data: SmallData, rows: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Gradient of each matrix by name, over one batch of ``rows`` rows; the model is unchanged."""
    inputs, targets = data.batch(0, rows, model.config.sequence_len, seed)
    matrices = {n: p for n, p in model.named_parameters() if parameter_kind(n, p) == "matrices"}
    loss = model(inputs.to(model.device), targets.to(model.device))
    found = torch.autograd.grad(loss, list(matrices.values()))
    return dict(zip(matrices, (g.detach().float() for g in found), strict=True))


def spectrum(matrix: Tensor) -> Tensor:
    """Singular values over the largest, in falling order, from the smaller of the two squares.

    Good to about 1e-7 of the largest, and several times faster than a decomposition.
    """
    short = matrix.detach().double()
    short = short if short.size(0) <= short.size(1) else short.T
    values = torch.linalg.eigvalsh(short @ short.T).clamp_min(0).sqrt().flip(0)
    return values / values[0].clamp_min(1e-300)


def directions(values: Tensor, share: float = 0.9) -> int:
    """How many of the largest singular ``values`` hold ``share`` of the squared norm."""
    part = values.square().cumsum(0) / values.square().sum()
    return int((part < share).sum()) + 1


def spectra(named: Mapping[str, Tensor], alt: str, caption: str = "") -> Html:
    """Falling singular values (each a mean over matrices or one spectrum), one line a name."""
    fig, axes = figure(height=2.9)
    with style():
        for name, values in named.items():
            keep = torch.linspace(0, len(values) - 1, min(len(values), 160)).round().long()
            axes.plot(((keep + 1) / len(values)).numpy(), values[keep].numpy(), label=name)
        axes.set(yscale="log", xlabel="singular values, largest first (as a part of all)")
        axes.set(ylabel="over the largest", ylim=(1e-3, 1.4))
        fig.legend(loc="outside upper left", ncols=3)
    return show(fig, alt, caption)


def neuron_lengths(g: Tensor) -> dict[str, Tensor]:
    """Root mean square of each neuron's step for ``g`` (rows, cols), before and after NorMuon."""
    x = polar_express(g[None]).float()
    scaled = x * variance_scale(x, _second_moment(x), torch.tensor(0.05))
    axis = neuron_axis(*g.shape)
    return {name: y[0].square().mean(axis).sqrt() for name, y in (("before", x), ("after", scaled))}


def weight_spectra(run: SmallRun, ending: str | tuple[str, ...]) -> Tensor:
    """Mean over layers of the spectra of the matrices whose names end so, for a trained model."""
    found = [spectrum(p) for n, p in run.model().named_parameters() if n.endswith(ending)]
    return torch.stack([s.detach() for s in found]).mean(0)


def stable_rank(matrix: Tensor) -> float:
    """Squared Frobenius norm over squared spectral norm: n for n equal singular values."""
    return float(spectrum(matrix).square().sum())


def gaussian_spectrum(rows: int, cols: int) -> Tensor:
    """Spectrum of a matrix of independent normal numbers: what chance alone gives."""
    return spectrum(torch.randn(rows, cols, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def bpb_by_rank(run: SmallRun, data: SmallData, ending: str, ranks: Sequence[int]) -> list[float]:
    """Held-out bits per byte with only the largest directions kept in matrices so named."""
    model = run.model()
    chosen = [p for n, p in model.named_parameters() if n.endswith(ending)]
    parts = [torch.linalg.svd(p, full_matrices=False) for p in chosen]
    found = []
    for rank in ranks:
        for p, (u, s, vt) in zip(chosen, parts, strict=True):
            p.copy_(u[:, :rank] * s[:rank] @ vt[:rank])
        found.append(bits_per_byte(model, data, rows=16))
    return found


def step_flops(rows: int, cols: int, iterations: int = 5) -> int:
    """FLOPs of Polar Express on one matrix, products on the shorter side, as written."""
    n, m = min(rows, cols), max(rows, cols)
    return iterations * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)


def who_updates_what(model: GPT, recipe: str = "run1") -> list[list[Any]]:
    """One row a group of the real optimizer: kind, an example, tensors, parameters, rate."""

    groups = parameter_groups(
        list(model.named_parameters()), model.config, get_recipe(recipe), 1.0, 0.2
    )
    return [
        [
            group["names"][0].replace("transformer.", ""),
            {"muon": "Muon", "adamw": "AdamW"}[group["kind"]],
            " x ".join(map(str, group["params"][0].shape)),
            len(group["params"]),
            sum(p.numel() for p in group["params"]),
            f"{group['lr']:.3g}",
        ]
        for group in groups
    ]


def time_updates(width: int, repeats: int = 3) -> dict[str, float]:
    """Median seconds of updating one layer's six matrices by Muon and by AdamW."""
    shapes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    pairs = [(torch.randn(1, *shape), torch.randn(1, *shape)) for shape in shapes]
    group = {"lr": 0.003, "betas": (0.9, 0.95), "weight_decay": 0.1}
    numbers: Any = [torch.tensor(v) for v in (0.95, 0.02, 0.1, 0.05)]
    steps = Steps(torch.device("cpu"), False, torch.bfloat16)

    def by_muon() -> None:
        for w, g in pairs:
            state = (torch.zeros_like(g), _second_moment(g))
            steps.muon(w, g, *state, *numbers, 5, SAFETY, False, False)

    def by_adamw() -> None:
        scalars: Any = [*adamw_scalars(group, 1), 1e-10]
        for w, g in pairs:
            steps.adamw(w, g, torch.zeros_like(g), torch.zeros_like(g), *scalars)

    return {"Muon": median_seconds(by_muon, repeats), "AdamW": median_seconds(by_adamw, repeats)}


def _second_moment(g: Tensor) -> Tensor:
    """NorMuon's state for matrices ``g`` (K, rows, cols), at the start."""
    return torch.zeros_like(g).mean(neuron_axis(g.size(1), g.size(2)), keepdim=True)
