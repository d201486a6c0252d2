"""Measurements of the chapter on Muon: gradients, steps and weights by their singular values."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from nanogpt2.depth import parameter_kind
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import SmallRun, bits_per_byte
from nanogpt2.lab.timing import median_seconds
from nanogpt2.model.gpt import GPT
from nanogpt2.optim.adamw import adamw_scalars
from nanogpt2.optim.fast import Steps
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.muon import neuron_axis, second_moment_shape, variance_scale
from nanogpt2.optim.polar_express import polar_express
from nanogpt2.recipes import get_recipe
from nanogpt2.reporting.statistics import compare

OUTPUTS = ("attn.c_proj.weight", "mlp.c_proj.weight")
"""matrices that start at zero: what stands in them after training is the sum of the steps"""


def gradients(model: GPT, data: SmallData, rows: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Gradient of each matrix by name, over one batch of ``rows`` rows; the model is unchanged."""
    inputs, targets = data.batch(0, rows, model.config.sequence_len, seed)
    matrices = {
        n: p for n, p in model.named_parameters() if parameter_kind(n, p.ndim) == "matrices"
    }
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


def neuron_lengths(g: Tensor) -> dict[str, Tensor]:
    """Root mean square of each neuron's step for ``g`` (rows, cols), before and after NorMuon."""
    x = polar_express(g[None]).float()
    scaled = x * variance_scale(x, torch.zeros(second_moment_shape(*x.shape)), torch.tensor(0.05))
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
    choices = asdict(get_recipe("run1").muon)

    def by_muon() -> None:
        for w, g in pairs:
            state = (torch.zeros_like(g), torch.zeros(second_moment_shape(*g.shape)))
            steps.muon(choices, w, g, *state, *numbers)

    def by_adamw() -> None:
        scalars: Any = [*adamw_scalars(group, 1), 1e-10]
        for w, g in pairs:
            steps.adamw(w, g, torch.zeros_like(g), torch.zeros_like(g), *scalars)

    return {"Muon": median_seconds(by_muon, repeats), "AdamW": median_seconds(by_adamw, repeats)}


def gate_norm(model: GPT, step: int) -> dict[str, float]:
    """Probe: the largest Frobenius norm of a gate of the value embeddings."""
    gates = [p for n, p in model.named_parameters() if n.endswith("ve_gate.weight")]
    return {"gate norm": max(float(p.detach().norm()) for p in gates)}


def distance_moved(run: SmallRun, ending: str) -> float:
    """Root mean square over layers of what training added to matrices whose names end so."""
    start = GPT(run.config)
    start.init_weights(run.seed)
    before = dict(start.named_parameters())
    changes = [p - before[n] for n, p in run.model().named_parameters() if n.endswith(ending)]
    return float(torch.stack([c.detach().square().mean() for c in changes]).mean().sqrt())


def verdict(muon: Sequence[float], adamw: Sequence[float], full: int) -> int:
    """0 to 3: Muon's stable ranks are (nearly) full, above AdamW's, alike, or below them."""
    found = compare(muon, adamw)
    if statistics.fmean(muon) > 0.8 * full:
        return 0
    if not found.distinguishable:
        return 2
    return 1 if found.difference > 0 else 3


def output_stable_rank(run: SmallRun) -> float:
    """Mean stable rank of the trained output projections."""
    named = run.model().named_parameters()
    return statistics.fmean(stable_rank(p) for n, p in named if n.endswith(OUTPUTS))
