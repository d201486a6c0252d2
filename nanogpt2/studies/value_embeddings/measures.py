"""Measurements of the chapter on value embeddings: scalars, gates and tables of trained models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.lab.probing import hooked, watched
from nanogpt2.lab.small_data import SmallData, small_data
from nanogpt2.lab.small_run import SmallRun, bits_per_byte, small_config, small_recipe
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import rms_norm
from nanogpt2.model.value_embeddings import ValueGate
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.schedules import apply_schedules
from nanogpt2.recipes import Recipe
from nanogpt2.training.fit import Point, fit

SCALARS = ("resid_lambdas", "x0_lambdas")
WORDS = (" he", " was", " three", " in", " because", ",")
"""whose neighbours the record keeps; each is one token of the small vocabulary"""
PROMISING = (" United", " (", " three", " not", " more", ",")
DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def scalars_probe(model: GPT, step: int) -> dict[str, float]:
    """Every residual scalar, for ``small_run(probe=...)``: resid_lambdas.0, x0_lambdas.0, ..."""
    return {
        f"{name}.{layer}": float(value)
        for name in SCALARS
        for layer, value in enumerate(getattr(model, name).detach())
    }


def equal_rates(rate: float) -> Recipe:
    """The small recipe with one rate for both kinds of residual scalar."""
    base = small_recipe()
    fast = replace(base.resid_lambdas, lr=rate)
    return small_recipe(resid_lambdas=fast, x0_lambdas=replace(base.x0_lambdas, lr=rate))


def first_steps(depth: int, steps: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """The scalars' gradients and values over the first steps of a model of that depth.

    One entry a step: ``gradient`` and ``before``/``after``, (L,) each, of x0_lambdas.
    """
    model, data, recipe = GPT(small_config(depth)), small_data(), small_recipe()
    model.init_weights(seed)
    optimizer = build_optimizer(model, recipe, lr_scale=1.0, weight_decay=recipe.muon.weight_decay)
    found: list[dict[str, Tensor]] = []

    def before(optimizer: torch.optim.Optimizer, step: int, _steps: int) -> None:
        assert model.x0_lambdas.grad is not None
        gradient = model.x0_lambdas.grad.clone()
        found.append({"gradient": gradient, "before": model.x0_lambdas.detach().clone()})
        apply_schedules(optimizer, recipe, step, 100)

    def after(_point: Point) -> None:
        found[-1]["after"] = model.x0_lambdas.detach().clone()

    batches = (data.batch(step, 2, model.config.sequence_len, seed) for step in range(steps))
    fit(model, optimizer, batches, steps, before, callbacks=(after,))
    return found


@torch.no_grad()
def gates(model: GPT, data: SmallData, rows: int = 32) -> dict[int, Tensor]:
    """What every gate is on held-out text: layer -> (rows x T, K)."""
    with watched(_gates(model)) as seen:
        model(data.validation(rows, model.config.sequence_len)[0])
    return {layer: gate.flatten(0, 1) for layer, (_, gate) in seen.items()}


def _gates(model: GPT) -> dict[int, ValueGate]:
    found = {i: getattr(block.attn, "ve_gate", None) for i, block in enumerate(model.blocks)}
    return {i: gate for i, gate in found.items() if isinstance(gate, ValueGate)}


def taken_apart(run: SmallRun, data: SmallData, rows: int = 64) -> dict[str, float]:
    """Held-out bits per byte of a trained model, and with one part of it taken away at a time."""

    def without(change: Callable[[GPT], None]) -> float:
        model = run.model()
        with torch.no_grad():
            change(model)
        return bits_per_byte(model, data, rows)

    def empty(model: GPT) -> None:
        for table in model.value_embeds.values():
            table.weight.zero_()  # type: ignore[operator, union-attr]

    def shuffle(model: GPT) -> None:
        order = torch.randperm(
            model.config.padded_vocab_size, generator=torch.Generator().manual_seed(0)
        )
        for table in model.value_embeds.values():
            table.weight.copy_(table.weight[order])  # type: ignore[operator, union-attr, index]

    def forget(model: GPT) -> None:
        model.x0_lambdas.zero_()

    model = run.model()
    found = {"as trained": bits_per_byte(model, data, rows)}
    held = {layer: value.mean(0) for layer, value in gates(model, data).items()}

    def hold(layer: int) -> Callable[..., Tensor]:
        return lambda _module, _input, output: held[layer].expand_as(output)

    with hooked((gate, hold(layer)) for layer, gate in _gates(model).items()):
        found["gates held at their mean"] = bits_per_byte(model, data, rows)
    found["rows of the tables shuffled"] = without(shuffle)
    found["tables emptied"] = without(empty)
    found["x0 taken away"] = without(forget)
    return found


def _stream(data: SmallData) -> Tensor:
    return torch.as_tensor(data.train.astype("int64"))


def guessing(data: SmallData, rows: int = 64, length: int = 128) -> float:
    """Bits per byte of one who knows how often each token occurs, and nothing else."""
    counts = torch.bincount(_stream(data)) + 1.0
    nats = -(counts / counts.sum()).log()
    targets = data.validation(rows, length)[1].flatten()
    sizes = torch.as_tensor(data.tokenizer.token_bytes)[targets]
    nats = nats[targets.clamp(max=len(nats) - 1)] * (sizes > 0)
    return float(nats.sum() / sizes.sum() / torch.tensor(2.0).log())


def neighbours(table: Tensor, token: int, count: int, among: Tensor) -> list[tuple[int, float]]:
    """The tokens of ``among`` whose rows point most nearly the way of ``token``'s, with cosines."""
    rows = F.normalize(table.float(), dim=-1)
    likeness = rows[among] @ rows[token]
    best = likeness.topk(count + 1)
    pairs = zip(among[best.indices].tolist(), best.values.tolist(), strict=True)
    return [(other, value) for other, value in pairs if other != token][:count]


def common_tokens(data: SmallData, times: int = 300) -> Tensor:
    """Tokens that the training text has at least that often, most frequent first."""
    counts = torch.bincount(_stream(data))
    order = counts.argsort(descending=True)
    return order[counts[order] >= times]


@torch.no_grad()
def promises(model: GPT, among: Tensor) -> dict[str, Tensor]:
    """What each token of ``among`` (n) says for the others by itself: name -> scores (n, n).

    Of the embedding: the head's scores of its normed row, as if no block stood between. Of a
    layer's value table: those of the row sent through that layer's output matrix, as if attention
    looked at this token alone and nothing came after. Each column's mean is taken away.
    """
    rows = {"embedding": rms_norm(model.wte.weight)}
    for name, table in model.value_embeds.items():
        out = model.blocks[int(name)].attn.c_proj
        rows[f"value table {name}"] = out(table.weight)  # type: ignore[operator]
    scores = {name: row[among] @ model.head_weight[among].T for name, row in rows.items()}
    return {name: value - value.mean(0) for name, value in scores.items()}


def surprise(data: SmallData, among: Tensor, distance: int) -> Tensor:
    """(n, n) log of how many times as often a token comes ``distance`` after another as anywhere.

    One count is added to each pair, spread as the tokens are.
    """
    stream, size = _stream(data), data.tokenizer.vocab_size
    first, second = stream[:-distance], stream[distance:]
    pairs = torch.bincount(first * size + second, minlength=size * size).view(size, size)
    share = torch.bincount(second, minlength=size) + 1.0
    share = share / share.sum()
    seen = (pairs + share) / (pairs.sum(1, keepdim=True) + 1)
    return (seen / share).log()[among][:, among]


def agreement(scores: Tensor, other: Tensor) -> float:
    """Correlation of two (n, n) tables row by row, mean over rows."""
    a, b = (t - t.mean(1, keepdim=True) for t in (scores, other))
    return float(F.cosine_similarity(a, b, dim=1).mean())


def echoes(scores: Tensor, best: int = 10) -> float:
    """Share of tokens that are among the ``best`` that they speak for themselves."""
    own = scores.diagonal().unsqueeze(1)
    return float(((scores > own).sum(1) < best).float().mean())


def reading(run: SmallRun, data: SmallData) -> dict[str, Any]:
    """What a trained model's tables, gates and scalars hold, as plain values."""
    model, among, decode = run.model(), common_tokens(data), data.tokenizer.decode
    tables = {"wte": model.wte.weight}
    tables |= {f"layer {n}": t.weight for n, t in model.value_embeds.items()}  # type: ignore[misc]
    said = promises(model, among)
    place = {int(token): i for i, token in enumerate(among)}
    token_of = {word: data.tokenizer.encode(word)[0] for word in (*WORDS, *PROMISING)}
    near = {
        word: {
            name: [decode([i]) for i, _ in neighbours(table, token_of[word], 5, among)]
            for name, table in tables.items()
        }
        for word in WORDS
    }
    foretold = {
        word: {
            name: [decode([int(among[i])]) for i in scores[place[token_of[word]]].topk(6)[1]]
            for name, scores in said.items()
        }
        for word in PROMISING
    }
    spread = {
        str(layer): {
            "mean": value.mean(0).tolist(),
            "low": value.quantile(0.1, dim=0).tolist(),
            "high": value.quantile(0.9, dim=0).tolist(),
        }
        for layer, value in gates(model, data).items()
    }
    return {
        "steps": run.steps,
        "bpb": run.bpb,
        "tokens": len(among),
        "neighbours": near,
        "promises": foretold,
        "echoes": {name: echoes(scores) for name, scores in said.items()},
        "agreement": {
            name: [agreement(scores, surprise(data, among, d)) for d in DISTANCES]
            for name, scores in said.items()
        },
        "gates": spread,
        "scalars": {name: getattr(model, name).tolist() for name in SCALARS},
        "taken_apart": taken_apart(run, data),
    }
