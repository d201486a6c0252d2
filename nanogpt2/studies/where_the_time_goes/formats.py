"""fp8 on real tensors: what a format and a scale keep of them, and what products lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nanogpt2.kernels.fp8 import E4M3, E5M2, quantize
from nanogpt2.lab.drawing import PAINT, drawing, rect, words
from nanogpt2.lab.probing import hooked
from nanogpt2.lab.small_data import SmallData
from nanogpt2.model.gpt import GPT

FORMATS = {"e4m3": E4M3, "e5m2": E5M2}
OWN, NONE = "its own", "none"
LOW, HIGH = -40, 18
"""powers of two that a frame shows"""


def product_tensors(model: GPT, data: SmallData, rows: int = 8) -> dict[str, Tensor]:
    """What meets in one product of a trained model: activations (N, C), weights, gradient."""
    layer, seen = model.blocks[model.config.n_layer // 2].mlp.c_fc, list[Tensor]()
    inputs, targets = data.validation(rows, model.config.sequence_len)
    with hooked([(layer, lambda _, x, out: seen.extend((x, out)))]):
        loss = model(inputs, targets)
    (gradient,) = torch.autograd.grad(loss, seen[1])
    tensors = {"activations": seen[0], "weights": layer.weight, "gradient": gradient}
    return {name: t.detach().float().flatten(0, -2) for name, t in tensors.items()}


def through(x: Tensor, kind: str, scale: str = OWN) -> Tensor:
    """``x`` after a journey through an fp8 format, scaled by its own largest number or not."""
    dtype = FORMATS[kind]
    if scale == OWN:
        small, back = quantize(x, dtype)
        return small.float() * back
    most = torch.finfo(dtype).max
    return x.float().clamp(-most, most).to(dtype).float()


def relative_error(x: Tensor, true: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((x.double() - true.double()).norm() / true.double().norm())


def zeroed(x: Tensor, true: Tensor) -> float:
    """Share of the numbers other than 0 that have become 0."""
    return float((x[true != 0] == 0).float().mean())


def product_rows(tensors: dict[str, Tensor]) -> list[list[Any]]:
    """Rows: product, relative error in bf16, in fp8, in fp8 without scales, to float64.

    The fp8 numbers are multiplied and summed in float64, so that the error is theirs alone.
    """
    x, w, g = (tensors[name] for name in ("activations", "weights", "gradient"))
    products: dict[str, tuple[Tensor, str, Tensor, str]] = {
        "forward, x W^T": (x, "e4m3", w.mT, "e4m3"),
        "to the input, G W": (g, "e5m2", w, "e4m3"),
        "to the weight, G^T x": (g.mT, "e5m2", x, "e4m3"),
    }
    rows = []
    for name, (a, a_kind, b, b_kind) in products.items():
        true = a.double() @ b.double()
        half = a.bfloat16().double() @ b.bfloat16().double()
        ways = [
            through(a, a_kind, scale).double() @ through(b, b_kind, scale).double()
            for scale in (OWN, NONE)
        ]
        rows.append([name, *(f"{relative_error(way, true):.2%}" for way in (half, *ways))])
    return rows


def outlier_rows(x: Tensor, factors: tuple[float, ...] = (1, 100, 1e4, 1e6)) -> list[list[Any]]:
    """Rows: how many times the largest an outlier is, what becomes 0, the others' error.

    One number is set to that many times the tensor's largest; error and zeros are of all others.
    """
    rows = []
    for factor in factors:
        spoiled = x.clone()
        spoiled.view(-1)[0] = x.abs().max() * factor
        found = through(spoiled, "e4m3").flatten()[1:]
        rest = x.flatten()[1:]
        gone = zeroed(found, rest)
        rows.append([f"{factor:,.0f}", f"{gone:.1%}", f"{relative_error(found, rest):.1%}"])
    return rows


def format_frames(tensors: dict[str, Tensor]) -> Callable[..., tuple[str, str]]:
    """A maker of frames for ``explore``: a tensor's magnitudes, and what a format takes of them."""

    def frame(tensor: str, format: str, scale: str) -> tuple[str, str]:
        x = tensors[tensor]
        info = torch.finfo(FORMATS[format])
        factor = float(info.max / x.abs().max()) if scale == OWN else 1.0
        shifted = (x[x != 0].abs() * factor).log2().floor().clamp(LOW, HIGH)
        shares = torch.histc(shifted, HIGH - LOW + 1, LOW, HIGH + 1) / shifted.numel()
        mantissa = {"e4m3": 3, "e5m2": 2}[format]
        normal = float(torch.tensor(info.smallest_normal).log2())
        top = float(torch.tensor(info.max).log2().floor())
        step, left, floor = 440 / (HIGH - LOW + 1), 20, 190

        def at(power: float) -> float:
            return left + step * (power - LOW)

        bands = [(normal - mantissa, normal, ".12"), (normal, top + 1, ".26")]
        body = [
            rect(at(a), 30, at(b) - at(a), floor - 30, PAINT[2], fill_opacity=deep)
            for a, b, deep in bands
        ]
        tallest = float(shares.max())
        for i, share in enumerate(shares.tolist()):
            high = 150 * share / tallest
            body.append(rect(at(LOW + i), floor - high, step - 1, high, PAINT[0]))
        for power in range(LOW, HIGH, 8):
            body.append(words(at(power), floor + 20, f"2^{power}", "middle", 13))
        back = through(x, format, scale)
        gone = zeroed(back, x)
        cut = float((x.abs() * factor > info.max * 1.0001).float().mean())
        told = f"{gone:.1%} become 0, {cut:.1%} too large, error {relative_error(back, x):.1%}"
        body.append(words(left, 18, told))
        alt = (
            f"Magnitudes of the {tensor} in powers of two, scale {scale}: {told}. {format} holds "
            f"2^{normal:.0f} to 2^{top + 1:.0f} in full, and a little below it with fewer digits."
        )
        return drawing(body, 220), alt

    return frame
