"""Measurements of the chapter on RMSNorm and QK-norm."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.inference.kv_cache import KVCache
from nanogpt2.kernels.windows import window_mask
from nanogpt2.lab.probing import attending, watched
from nanogpt2.lab.seams import patched
from nanogpt2.lab.small_data import SmallData, small_data
from nanogpt2.lab.small_run import small_config
from nanogpt2.lab.timing import median_seconds, torch_threads
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import Norm, rms_norm
from nanogpt2.reporting.statistics import compare


def held_out(model: GPT, rows: int = 8) -> Tensor:
    """(rows, T) token ids of the small data's held-out text."""
    return small_data(model.config.vocab_size).validation(rows, model.config.sequence_len)[0]


@torch.no_grad()
def _scores(model: GPT, rows: int = 8) -> list[Tensor]:
    """(B, H, T, T) of every layer, over held-out rows; keys after the query are -inf."""
    found: list[Tensor] = []

    def see(right: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        s = torch.einsum("bmhd,bnhd->bhmn", q.float(), k.float()) / q.size(-1) ** 0.5
        seen = window_mask(s.size(-2), s.size(-1), s.size(-1), s.device)
        found.append(s.masked_fill(~seen, -torch.inf))
        return right(q, k, v, window)

    with attending(see):
        model.hidden(held_out(model, rows).to(model.device))
    return found


def largest_score(model: GPT, step: int = 0) -> dict[str, float]:
    """A probe of ``small_run``: the largest attention score that held-out rows meet."""
    return {"largest score": max(float(s.max()) for s in _scores(model))}


def sharpest_weight(model: GPT) -> float:
    """Mean over layers, heads and queries of the largest weight that a query gives to one key.

    Over the second half of each row, where a query has many keys to choose from; windows are
    not applied.
    """
    half = model.config.sequence_len // 2
    return statistics.fmean(
        float(s.softmax(-1).amax(-1)[..., half:].mean()) for s in _scores(model)
    )


@torch.no_grad()
def score_growth(depth: int, factors: tuple[float, ...] = (1, 2, 4, 8)) -> list[list[Any]]:
    """Rows: factor on all query and key matrices, largest score without and with QK-norm."""
    model, rows, before = GPT(small_config(depth)), [], 1.0
    for factor in factors:
        for block in model.blocks:
            for matrix in (block.attn.c_q, block.attn.c_k):
                matrix.weight.mul_(factor / before)
        before = factor
        found = []
        for qk_norm in (False, True):
            for block in model.blocks:
                block.attn.qk_norm = qk_norm
            found.append(max(float(s.max()) for s in _scores(model, rows=1)))
        rows.append([f"{factor:g}", *found])
    return rows


@torch.no_grad()
def incoming(model: GPT) -> list[list[Any]]:
    """Rows: each norm of the model, and the smallest, mean and largest rms of what it takes in."""
    kinds = {
        "1 after the embedding": "embedding_norm",
        "2 before attention": "attn_norm",
        "4 before the MLP": "mlp_norm",
        "5 before the head": "final_norm",
    }
    pairs: list[Tensor] = []

    def qk_norm(x: Tensor, *more: Any) -> Tensor:
        pairs.append(x)
        return rms_norm(x, *more)

    norms = {name: module for name, module in model.named_modules() if isinstance(module, Norm)}
    with watched(norms) as seen, patched("nanogpt2.model.attention.rms_norm", qk_norm):
        model(held_out(model))
    inputs = {k: [x for n, (x, _) in seen.items() if n.endswith(end)] for k, end in kinds.items()}
    inputs["3 queries and keys"] = pairs
    return [[kind, *_extent(map(_rms, found))] for kind, found in sorted(inputs.items())]


def _extent(parts: Iterable[Tensor]) -> list[float]:
    """The smallest, mean and largest of all numbers in ``parts``."""
    together = torch.cat(list(parts))
    return [float(f(together)) for f in (torch.amin, torch.mean, torch.amax)]


def _rms(x: Tensor) -> Tensor:
    return x.float().square().mean(-1).sqrt().flatten()


@torch.no_grad()
def mean_share(model: GPT) -> float:
    """Share of the stream's squared length that is its mean, before the head; 1 / C by chance."""
    with watched({"last": model.final_norm}) as seen:
        model(held_out(model))
    x = seen["last"][0]
    return float((x.mean(-1).square() / x.square().mean(-1)).mean())


def learned_gains(model: GPT) -> list[list[Any]]:
    """Rows: each kind of norm, and the smallest, mean and largest of its gains."""
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            found.setdefault(name.split(".")[-2], []).append(parameter.detach())
    return [[f"`{kind}`", *_extent(gains)] for kind, gains in found.items()]


@torch.no_grad()
def fold_gains(model: GPT) -> GPT:
    """The same function with every gain before a matrix multiplied into it, in place.

    Left is the gain of the embedding's norm: what follows it is the stream, not a matrix.
    """
    after: list[tuple[Norm, list[Any]]] = [(model.final_norm, [model.lm_head])]
    for block in model.blocks:
        attn = block.attn
        gate = [attn.ve_gate] if hasattr(attn, "ve_gate") else []
        after.append((block.attn_norm, [attn.c_q, attn.c_k, attn.c_v, *gate]))
        after.append((block.mlp_norm, [block.mlp.c_fc]))
    for norm, layers in after:
        assert norm.weight is not None
        for layer in layers:
            weight = next(layer.parameters())
            weight.mul_(norm.weight[: weight.size(1)])  # the gate reads the first channels only
        norm.weight.fill_(1.0)
    return model


@torch.no_grad()
def silences(model: GPT) -> list[list[Any]]:
    """Rows: layer, share of the MLP's hidden values that are 0, units that are 0 for every
    token, share of the sum of all values that the largest twentieth holds."""
    with watched({f"{i}": block.mlp.c_fc for i, block in enumerate(model.blocks, 1)}) as seen:
        model(held_out(model))
    return [[layer, *silence(h)] for layer, (_, h) in seen.items()]


def silence(h_BTF: Tensor) -> list[Any]:
    """Share of values that squared ReLU makes 0, units that are always 0, the largest twentieth."""
    values = F.relu(h_BTF).square()
    dead = int((values.flatten(0, -2).amax(0) == 0).sum())
    ordered = values.flatten().sort(descending=True).values
    top = float(ordered[: len(ordered) // 20].sum() / ordered.sum())
    return [float((values == 0).float().mean()), dead, top]


def rms_after(widths: tuple[int, ...] = (32, 128, 768, 1536)) -> list[list[Any]]:
    """Rows: a way to compute the norm, and for each width the rms of its output (1 is right)."""
    generator = torch.Generator().manual_seed(3)
    inputs = [10 * torch.randn(64, width, generator=generator) for width in widths]
    return [
        [name.format(kind), *(float(_rms(way(x.to(dtype))).mean()) for x in inputs)]
        for name, way in (("kernel, {} in and out", rms_norm), ("every step in {}", _stepwise))
        for kind, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16))
    ]


def _stepwise(x: Tensor) -> Tensor:
    """Squares, a running sum and the root, each rounded to the dtype of ``x``."""
    total = torch.zeros_like(x[:, :1])
    for channel in x.split(1, dim=-1):
        total = total + channel * channel
    return x / (total / x.size(-1)).sqrt()


def time_norm(width: int, tokens: int = 1024, repeats: int = 7) -> dict[str, float]:
    """Median seconds of one layer's norms and of its matrix products, forward."""
    x = torch.randn(1, tokens, width)
    heads = x.view(1, tokens, -1, 128) if width % 128 == 0 else x.view(1, tokens, 1, width)
    square, wide = torch.randn(width, width), torch.randn(width, 4 * width)
    gain, shift = torch.ones(width), torch.zeros(width)

    def layer_norm() -> Tensor:
        return F.layer_norm(x, (width,), gain, shift)

    parts: dict[str, Callable[[], Any]] = {
        "two norms of the stream": lambda: (rms_norm(x), rms_norm(x)),
        "norms of q and k": lambda: (rms_norm(heads), rms_norm(heads)),
        "LayerNorm in place of the two": lambda: (layer_norm(), layer_norm()),
        "all matrix products": lambda: ([x @ square for _ in range(4)], (x @ wide) @ wide.T),
    }
    return {name: median_seconds(run, repeats) for name, run in parts.items()}


@torch.no_grad()
def row_losses(
    model: GPT, data: SmallData, rows: int = 16, length: int = 64
) -> tuple[float, float]:
    """Nats per token of rows of ``length`` read at once, and of the same rows token by token."""
    x, y = data.validation(rows, length)
    cache = KVCache(model.config, rows, length)
    with torch_threads(1):  # one token is too little work to share
        steps = torch.cat([model(token, cache=cache) for token in x.split(1, dim=1)], dim=1)
        return float(model(x, y)), float(F.cross_entropy(steps.flatten(0, 1), y.flatten()))


def verdict(with_gain: list[float], without: list[float]) -> int:
    """0, 1 or 2: the gain helps, makes no difference that seeds can show, or hurts."""
    found = compare(with_gain, without)
    return 1 if not found.distinguishable else 0 if found.difference < 0 else 2
