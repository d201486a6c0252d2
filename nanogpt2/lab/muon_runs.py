"""Runs of the chapter on Muon: failures brought about on purpose, and the recorded comparison."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt2.errors import run_command
from nanogpt2.lab.muon import SAFETY, stable_rank, weight_spectra
from nanogpt2.lab.patching import patched
from nanogpt2.lab.records import record
from nanogpt2.lab.small_run import SmallRun, as_record, compare, small_recipe, small_run
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import muon as muon_room
from nanogpt2.optim import polar_express as express_room
from nanogpt2.optim.polar_express import COEFFICIENTS
from nanogpt2.recipes import Recipe

RATES = {"adamw": (0.003, 0.006, 0.012, 0.024), "muon": (0.02, 0.04, 0.08, 0.16)}
OUTPUTS = ("attn.c_proj.weight", "mlp.c_proj.weight")
"""matrices that start at zero: what stands in them after training is the sum of the steps"""


def unsafe_coefficients() -> list[tuple[float, float, float]]:
    """The package's polynomials with their own safety factor taken out again."""
    factors = [SAFETY] * 4 + [1.0]
    return [(a * f, b * f**3, c * f**5) for (a, b, c), f in zip(COEFFICIENTS, factors, strict=True)]


@contextmanager
def unguarded() -> Iterator[None]:
    """Failure: the polynomials end exactly at 1, with no room for rounding."""
    with patched(express_room, "COEFFICIENTS", tuple(unsafe_coefficients())):
        yield


@contextmanager
def shapes_swapped() -> Iterator[None]:
    """Failure: weights are taken for (in, out), so that rows and columns change places."""
    factor, axis = muon_room.shape_factor, muon_room.neuron_axis
    with (
        patched(muon_room, "shape_factor", lambda rows, cols: factor(cols, rows)),
        patched(muon_room, "neuron_axis", lambda rows, cols: axis(cols, rows)),
    ):
        yield


@contextmanager
def no_variance_reduction() -> Iterator[None]:
    """Muon without NorMuon's step."""
    one = lambda x, *_: x.new_ones(1, 1, 1, dtype=torch.float32)  # noqa: E731
    with patched(muon_room, "variance_scale", one):
        yield


def longest_row(inner: bool, outer: float, dtype: torch.dtype, rows: int = 200) -> str:
    """Median and largest length of orthogonalized random single rows of 32, as "median / worst".

    ``inner``: keep the safety factor in the coefficients; ``outer``: the divisor of the norm.
    """
    g = torch.randn(rows, 1, 32, generator=torch.Generator().manual_seed(0))
    with nullcontext() if inner else unguarded():
        x = express_room.polar_express(g, divisor=outer, dtype=dtype)
    length = torch.linalg.vector_norm(x.float(), dim=(1, 2)).nan_to_num(math.inf, math.inf)
    return f"{float(length.median()):.3g} / {float(length.max()):.3g}"


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


def recipe_with(kind: str, rate: float | None = None, **muon: Any) -> Recipe:
    """The book's small recipe with the matrices under "muon" or "adamw" at ``rate``."""
    recipe = small_recipe(matrices=kind)
    if kind == "adamw":
        group = recipe.matrices_adamw
        return replace(recipe, matrices_adamw=replace(group, lr=rate or group.lr))
    return replace(recipe, muon=replace(recipe.muon, lr=rate or recipe.muon.lr, **muon))


def output_spectrum(runs: Sequence[SmallRun]) -> Tensor:
    """Mean spectrum of the trained output projections over layers and runs."""
    return torch.stack([weight_spectra(r, OUTPUTS) for r in runs]).mean(0)


def output_stable_rank(run: SmallRun) -> float:
    """Mean stable rank of the trained output projections."""
    named = run.model().named_parameters()
    return statistics.fmean(stable_rank(p) for n, p in named if n.endswith(OUTPUTS))


def record_comparison(steps: int = 240, seeds: Sequence[int] = (0, 1, 2)) -> str:
    """Tune both by rate, train each at its best over ``seeds``, then Muon with parts changed."""
    common: dict[str, Any] = {"steps": steps, "evaluate_every": steps // 12}

    def trained(kind: str, rate: float, over: Sequence[int], **extra: Any) -> list[SmallRun]:
        within = extra.pop("within", None)
        recipe = recipe_with(kind, rate, **extra)
        return [small_run(recipe=recipe, seed=s, within=within, **common) for s in over]

    sweep = {
        kind: {rate: trained(kind, rate, seeds[:1])[0].bpb for rate in rates}
        for kind, rates in RATES.items()
    }
    best = {kind: min(found, key=found.__getitem__) for kind, found in sweep.items()}
    rate = best["muon"]
    groups = {
        "AdamW": trained("adamw", best["adamw"], seeds),
        "Muon": trained("muon", rate, seeds),
        "Muon without NorMuon": trained("muon", rate, seeds, within=no_variance_reduction),
        "Muon with MuonEq": trained("muon", rate, seeds, equalize_rows=True),
        "Muon with Muon+": trained("muon", rate, seeds, fix_norm=True),
    }
    ends = {name: [run.bpb for run in runs] for name, runs in groups.items()}
    against = {name: str(compare(found, ends["Muon"])) for name, found in ends.items()}
    two = {name: groups[name] for name in ("AdamW", "Muon")}
    named = {f"bpb_{name}_seed{run.seed}": run for name, runs in two.items() for run in runs}
    first = as_record(groups["Muon"][0])
    chosen = " ".join(map(str, seeds))
    path = record(
        "muon-adamw-depth4",
        command=f"python -m nanogpt2.lab.muon_runs --steps {steps} --seeds {chosen}",
        configuration={**first["configuration"], "rates": RATES, "seeds": list(seeds)},
        seed=seeds[0],
        tokens=first["tokens"],
        seconds=sum(run.seconds for runs in groups.values() for run in runs),
        curve=[
            {"step": point["step"], "tokens": point["tokens"]}
            | {name: run.curve[i]["bpb"] for name, run in named.items()}
            for i, point in enumerate(groups["Muon"][0].curve)
        ],
        results={
            "sweep_bpb": {k: {f"{r:g}": b for r, b in v.items()} for k, v in sweep.items()},
            "best_rate": best,
            "bpb": ends,
            "against_muon": {name: told for name, told in against.items() if name != "Muon"},
            "stable_rank": {n: [output_stable_rank(r) for r in runs] for n, runs in two.items()},
            "spectrum": {
                name: [round(v, 6) for v in output_spectrum(runs).tolist()]
                for name, runs in two.items()
            },
        },
        note="AdamW against Muon for the matrices at depth 4, T 128, embedded corpus, each at the "
        "best of four rates; then Muon with one part changed. Tokens are those of one run, "
        "seconds those of all runs at the best rates.",
    )
    return str(path)


def main() -> None:
    """Command line of the recorded comparison."""
    parser = argparse.ArgumentParser(description=record_comparison.__doc__)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print(record_comparison(arguments.steps, tuple(arguments.seeds)))


if __name__ == "__main__":
    run_command(main)
