"""Training runs of the chapter on norms: the changed models, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import GPTConfig
from nanogpt2.inference.kv_cache import KVCache
from nanogpt2.lab.records import Record, record
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import SmallRun, as_record, compare, small_config, small_runs
from nanogpt2.model import gpt, norm
from nanogpt2.model.gpt import GPT


class DyT(nn.Module):
    """Dynamic tanh (Zhu et al., arXiv 2503.10622) in a norm's place: gain tanh(alpha x) + shift."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.weight = nn.Parameter(torch.ones(config.n_embd))
        self.bias = nn.Parameter(torch.zeros(config.n_embd))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.weight * torch.tanh(self.alpha * x) + self.bias


@contextmanager
def dynamic_tanh() -> Iterator[None]:
    """Models made within the block have DyT where the others have a norm (QK-norm stays)."""
    right = gpt.Norm
    gpt.Norm = DyT  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gpt.Norm = right  # type: ignore[misc]


@contextmanager
def over_time() -> Iterator[None]:
    """Failure: the mean square is taken over the row's positions in place of the channels."""
    right = norm.rms_norm

    def wrong(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-7).rsqrt()

    norm.rms_norm = wrong
    try:
        yield
    finally:
        norm.rms_norm = right


@torch.no_grad()
def looks_ahead(model: GPT, data: SmallData) -> float:
    """Largest change of the logits of a row's tokens when only the last token is replaced."""
    tokens, _ = data.validation(8, model.config.sequence_len)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
    return float((model(tokens) - model(other))[:, :-1].abs().max())


@torch.no_grad()
def row_losses(
    model: GPT, data: SmallData, rows: int = 16, length: int = 64
) -> tuple[float, float]:
    """Nats per token of rows of ``length`` read at once, and of the same rows token by token."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one token is too little work to share
    try:
        x, y = data.validation(rows, length)
        cache = KVCache(model.config, rows, length)
        steps = torch.cat([model(token, cache=cache) for token in x.split(1, dim=1)], dim=1)
        return float(model(x, y)), float(F.cross_entropy(steps.flatten(0, 1), y.flatten()))
    finally:
        torch.set_num_threads(threads)


def verdict(with_gain: list[float], without: list[float]) -> int:
    """0, 1 or 2: the gain helps, makes no difference that seeds can show, or hurts."""
    found = compare(with_gain, without)
    return 1 if not found.distinguishable else 0 if found.difference < 0 else 2


CHANGES: dict[str, dict[str, Any]] = {
    "gain": {"norm_learnable": True},
    "mean_subtracted": {"norm": "layer"},
    "layer_norm": {"norm": "layer", "norm_learnable": True},
    "dyt": {},
    "no_embedding_norm": {"embedding_norm": False},
    "no_qk_norm": {"qk_norm": False},
    "no_softcap": {"logit_softcap": 0.0},
    "tied_head": {"tied_head": True, "wte_std": 0.02},
    "gelu": {"activation": "gelu"},
}
"""What is compared with the book's baseline, one change each."""
NAMES = {
    "gain": "a learned gain on every norm",
    "mean_subtracted": "LayerNorm, without gain and shift",
    "layer_norm": "LayerNorm, with gain and shift",
    "dyt": "DyT in place of every norm but QK-norm",
    "no_embedding_norm": "no norm after the embedding",
    "no_qk_norm": "no QK-norm",
    "no_softcap": "no softcap",
    "tied_head": "a tied head",
    "gelu": "GELU in place of squared ReLU",
}
WITHIN: dict[str, Callable[[], Any]] = {"dyt": dynamic_tanh}


def recorded_rows(kept: Record, *names: str) -> list[list[str]]:
    """Rows for ``names`` of ``CHANGES``: the change, its difference, the spread, a verdict."""
    found = kept.results
    rows = []
    for name in names:
        apart, less = found["distinguishable"][name], found["minus_baseline"][name] < 0
        verdict = ("better" if less else "worse") if apart else "not distinguishable"
        numbers = (f"{found['minus_baseline'][name]:+.4f}", f"{found['spread'][name]:.4f}")
        rows.append([NAMES[name], *numbers, verdict])
    return rows


def record_comparison(
    steps: int = 240,
    depth: int = 4,
    seeds: tuple[int, ...] = (0, 1, 2),
    device: str = "cpu",
) -> str:
    """Train the baseline and every change over ``seeds``, and record what the chapter quotes."""
    settings: dict[str, Any] = {"steps": steps, "device": device}
    runs: dict[str, list[SmallRun]] = {
        "baseline": small_runs(small_config(depth), seeds, **settings)
    }
    for name, switches in CHANGES.items():
        config = small_config(depth, **switches)
        runs[name] = small_runs(config, seeds, within=WITHIN.get(name), **settings)
    ends = {name: [run.bpb for run in group] for name, group in runs.items()}
    found = {name: compare(ends[name], ends["baseline"]) for name in CHANGES}
    curve = [
        {"step": point["step"], "tokens": point["tokens"]}
        | {f"bpb_{n}": sum(r.curve[i]["bpb"] for r in g) / len(g) for n, g in runs.items()}
        for i, point in enumerate(runs["baseline"][0].curve)
    ]
    first, model = as_record(runs["baseline"][0]), runs["baseline"][0].config
    options = f"--depth {depth} --steps {steps} --seeds {' '.join(map(str, seeds))}"
    options += f" --device {device}" if device != "cpu" else ""
    changes = {**CHANGES, "dyt": {"norms": "dynamic tanh, alpha 0.5 at the start"}}
    path = record(
        f"norms-depth{depth}",
        command=f"python -m nanogpt2.lab.norms {options}",
        configuration={**first["configuration"], "changes": changes, "seeds": list(seeds)},
        seed=seeds[0],
        tokens=first["tokens"],
        seconds=sum(run.seconds for group in runs.values() for run in group),
        curve=curve,
        results={
            "bpb": ends,
            "minus_baseline": {name: c.difference for name, c in found.items()},
            "spread": {name: c.spread for name, c in found.items()},
            "distinguishable": {name: c.distinguishable for name, c in found.items()},
        },
        note=f"The book's small model and one change at a time: {depth} layers, {model.n_embd} "
        f"wide, heads of {model.head_dim}, rows of {model.sequence_len} tokens of the embedded "
        f"corpus, {len(seeds)} seeds each; the curve is the mean over seeds; tokens are those of "
        "one run, seconds those of all.",
    )
    return str(path)
