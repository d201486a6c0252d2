"""Measurements of the chapter on RMSNorm and QK-norm."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import run_command
from nanogpt2.kernels.windows import window_mask
from nanogpt2.lab.changes import record_changes, record_parser
from nanogpt2.lab.norms_pictures import attention_frame, block_picture, norm_frame
from nanogpt2.lab.norms_runs import (
    CHANGES,
    WITHIN,
    dynamic_tanh,
    looks_ahead,
    over_time,
    row_losses,
    verdict,
)
from nanogpt2.lab.patching import patched
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_config
from nanogpt2.lab.timing import median_seconds
from nanogpt2.model import attention as attention_room
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import Norm, rms_norm

__all__ = [
    "attention_frame",
    "block_picture",
    "dynamic_tanh",
    "fold_gains",
    "incoming",
    "largest_score",
    "learned_gains",
    "looks_ahead",
    "mean_share",
    "norm_frame",
    "over_time",
    "row_losses",
    "rms_after",
    "score_growth",
    "sharpest_weight",
    "silences",
    "time_norm",
    "verdict",
]


@contextmanager
def _watching(see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """``see(q, k)`` is called with what each layer's attention takes in."""
    real = attention_room.attention

    def watched(q: Tensor, k: Tensor, v: Tensor, window: int, **more: Any) -> Tensor:
        see(q, k)
        return real(q, k, v, window, **more)

    with patched(attention_room, "attention", watched):
        yield


@torch.no_grad()
def _scores(model: GPT, rows: int = 8) -> list[Tensor]:
    """(B, H, T, T) of every layer, over held-out rows; keys after the query are -inf."""
    tokens = small_data(model.config.vocab_size).validation(rows, model.config.sequence_len)[0]
    found: list[Tensor] = []

    def see(q: Tensor, k: Tensor) -> None:
        s = torch.einsum("bmhd,bnhd->bhmn", q.float(), k.float()) / q.size(-1) ** 0.5
        seen = window_mask(s.size(-2), s.size(-1), s.size(-1), s.device)
        found.append(s.masked_fill(~seen, -torch.inf))

    with _watching(see):
        model.hidden(tokens.to(model.device))
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
        "1 after the embedding": ("embedding_norm",),
        "2 before attention": ("attn_norm",),
        "4 before the MLP": ("mlp_norm",),
        "5 before the head": ("final_norm",),
    }
    sizes: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    pairs: list[Tensor] = []

    def hook(kind: str) -> Callable[..., None]:
        return lambda _module, inputs, _output: sizes[kind].append(_rms(inputs[0]))

    handles = [
        module.register_forward_hook(hook(kind))
        for name, module in model.named_modules()
        if isinstance(module, Norm)
        for kind, ends in kinds.items()
        if name.endswith(ends)
    ]
    real = attention_room.rms_norm
    attention_room.rms_norm = lambda x, *more: pairs.append(_rms(x)) or real(x, *more)  # type: ignore[func-returns-value]
    try:
        model(small_data(model.config.vocab_size).validation(8, model.config.sequence_len)[0])
    finally:
        attention_room.rms_norm = real
        for handle in handles:
            handle.remove()
    sizes = dict(sorted({**sizes, "3 queries and keys": pairs}.items()))
    return [
        [kind, *(float(f(torch.cat(found))) for f in (torch.amin, torch.mean, torch.amax))]
        for kind, found in sizes.items()
    ]


def _rms(x: Tensor) -> Tensor:
    return x.float().square().mean(-1).sqrt().flatten()


@torch.no_grad()
def mean_share(model: GPT) -> float:
    """Share of the stream's squared length that is its mean, before the head; 1 / C by chance."""
    shares: list[Tensor] = []
    handle = model.final_norm.register_forward_hook(
        lambda _module, inputs, _output: shares.append(
            inputs[0].mean(-1).square() / inputs[0].square().mean(-1)
        )
    )
    model(small_data(model.config.vocab_size).validation(8, model.config.sequence_len)[0])
    handle.remove()
    return float(shares[0].mean())


def learned_gains(model: GPT) -> list[list[Any]]:
    """Rows: each kind of norm, and the smallest, mean and largest of its gains."""
    found: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            found.setdefault(name.split(".")[-2], []).append(parameter.detach())
    return [
        [f"`{kind}`", *(float(f(torch.cat(gains))) for f in (torch.amin, torch.mean, torch.amax))]
        for kind, gains in found.items()
    ]


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
    rows: list[list[Any]] = []
    handles = [
        block.mlp.c_fc.register_forward_hook(
            lambda _module, _inputs, h, layer=layer: rows.append([f"{layer + 1}", *_silence(h)])
        )
        for layer, block in enumerate(model.blocks)
    ]
    model(small_data(model.config.vocab_size).validation(8, model.config.sequence_len)[0])
    for handle in handles:
        handle.remove()
    return rows


def _silence(h_BTF: Tensor) -> list[Any]:
    values = F.relu(h_BTF).square()
    dead = int((values.flatten(0, -2).amax(0) == 0).sum())
    ordered = values.flatten().sort(descending=True).values
    top = float(ordered[: len(ordered) // 20].sum() / ordered.sum())
    return [float((values == 0).float().mean()), dead, top]


def rms_after(widths: tuple[int, ...] = (32, 128, 768, 1536)) -> list[list[Any]]:
    """Rows: a way to compute the norm, and for each width the rms of its output (1 is right)."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "kernel, bf16 in and out": lambda x: rms_norm(x.bfloat16()),
        "kernel, fp16 in and out": lambda x: rms_norm(x.half()),
        "every step in bf16": lambda x: _stepwise(x.bfloat16()),
        "every step in fp16": lambda x: _stepwise(x.half()),
    }
    generator = torch.Generator().manual_seed(3)
    inputs = [10 * torch.randn(64, width, generator=generator) for width in widths]
    return [[name, *(float(_rms(way(x)).mean()) for x in inputs)] for name, way in ways.items()]


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


def main() -> None:
    """Command line of the recorded comparison."""
    module = "nanogpt2.lab.norms"
    at = record_parser(module, "Record the small model against one change of its norms each.")
    what = "The book's small model and one change at a time"
    print(record_changes("norms", module, CHANGES, WITHIN, what=what, **vars(at.parse_args())))


if __name__ == "__main__":
    run_command(main)
