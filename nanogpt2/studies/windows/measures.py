"""Measurements of the chapter on sliding windows and FlashAttention."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanogpt2.depth import attention_flops, dial, flops_per_token
from nanogpt2.inference.kv_cache import cache_bytes
from nanogpt2.kernels.attention import attention
from nanogpt2.kernels.backends import describe_backends
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.kernels.windows import plain_attention
from nanogpt2.lab.probing import hooked
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import SmallRun
from nanogpt2.lab.timing import best_seconds
from nanogpt2.model.gpt import GPT


def pairs(length: int, window: int) -> int:
    """Scores that ``length`` causal queries need, each its own and ``window`` keys before it."""
    reach = min(window, length - 1)
    return length * (reach + 1) - reach * (reach + 1) // 2


def time_attention(
    ways: Sequence[tuple[str, int]],
    length: int = 2048,
    heads: int = 6,
    head_dim: int = 128,
    rounds: int = 4,
    device: str = "cpu",
) -> list[float]:
    """Best seconds of attention, forward and backward, for each (backend, window) in ``ways``.

    All take their turns round after round, so that a busy moment hits all alike.
    """
    dtype = torch.bfloat16 if good_at_bf16(device) else torch.float32
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, length, heads, head_dim, generator=generator).to(device, dtype)
        for _ in range(4)
    )
    inputs = tuple(x.requires_grad_() for x in (q, k, v))

    def once(backend: str, window: int) -> None:
        torch.autograd.grad(attention(q, k, v, window, backend), inputs, grad)

    return best_seconds([functools.partial(once, *way) for way in ways], rounds, device)


def model_seconds(
    depth: int, patterns: Sequence[str], length: int = 2048, rounds: int = 2
) -> list[float]:
    """Best seconds of one forward pass of ``length`` tokens, head left out, by window pattern."""
    base = replace(dial(depth, "run1").model, sequence_len=length)
    model, tokens = GPT(base), torch.arange(length)[None]
    model.compute_dtype = torch.bfloat16 if good_at_bf16("cpu") else torch.float32

    @torch.no_grad()
    def run(pattern: str) -> None:
        windows = replace(base, window_pattern=pattern).window_sizes()
        for block, (left, _) in zip(model.blocks, windows, strict=True):
            block.attn.window = left
        model.hidden(tokens)

    return best_seconds([functools.partial(run, pattern) for pattern in patterns], rounds, "cpu")


def pattern_rows(depth: int = 24, recipe: str = "run1") -> list[list[Any]]:
    """Rows: pattern, FLOPs a token, the share that is attention's, of it what ``L`` has."""
    base, rows = dial(depth, recipe).model, []
    for pattern, divisor in (("L", 2), ("SSSL", 2), ("SSSL", 4), ("SSSL", 16)):
        model = replace(base, window_pattern=pattern, short_window_divisor=divisor)
        scores, total = attention_flops(model), flops_per_token(model)
        name = "L" if pattern == "L" else f"{pattern}, short T/{divisor}"
        rows.append([name, total, scores, scores / total])
    return rows


def cache_rows(depth: int = 24, lengths: Sequence[int] = (512, 1024, 2048)) -> list[list[Any]]:
    """Rows: tokens, MB of a row's cache (bf16) with full windows and with SSSL, the ratio."""
    ours = dial(depth, "run1").model
    full, rows = replace(ours, window_pattern="L"), []
    for length in lengths:
        whole, ring = (cache_bytes(config, 1, length) / 1e6 for config in (full, ours))
        rows.append([f"{length:,}", f"{whole:.1f}", f"{ring:.1f}", f"{ring / whole:.2f}"])
    return rows


def dispatch_rows(device: str | None = None, window: int = 1024) -> list[list[str]]:
    """The package's own dispatch on this machine: backend, verdict, reason."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return [
        [
            f"`{row.backend}`",
            "chosen" if row.chosen else "can" if row.serves else "cannot",
            row.reason,
        ]
        for row in describe_backends(device, dtype, window=window)
    ]


def influence(run: SmallRun, data: SmallData, rows: int = 64) -> Tensor:
    """(T,) how much the last token's loss depends on the embedding d tokens back, d = 0 first.

    The norm of the gradient, mean over held-out rows, as a share of the whole.
    """
    model, found = run.model(), list[Tensor]()
    inputs, targets = data.validation(rows, model.config.sequence_len)

    def keep(_module: Any, _input: Tensor, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_())
        return found[0]

    with hooked([(model.embedding_norm, keep)]):
        losses = model(inputs, targets, loss_reduction="none").view(rows, -1)
        (gradient,) = torch.autograd.grad(losses[:, -1].sum(), found[0])
    size = gradient.norm(dim=-1).mean(0).flip(0)
    return size / size.sum()


def off_by_one(windows: Sequence[int], length: int = 300) -> list[list[Any]]:
    """Rows: window, relative error of attention one key short, of attention rounded to bf16."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, length, 2, 64, generator=generator) for _ in range(3))
    rows = []
    for window in windows:
        true = plain_attention(q.double(), k.double(), v.double(), window)
        short = plain_attention(q.double(), k.double(), v.double(), window - 1)
        rounded = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), window).double()
        errors = [float((x - true).norm() / true.norm()) for x in (short, rounded)]
        rows.append([window, *errors])
    return rows
