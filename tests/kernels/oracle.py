"""Attention as it is defined, query by query, in float64: what every backend is held against."""

from __future__ import annotations

import torch
from torch import Tensor


def definition(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None = None) -> Tensor:
    """A softmax for each query over its own key and the ``window`` before it; no mask anywhere."""
    q, k, v = (x.double() for x in (q, k, v))
    shared, past = q.shape[2] // k.shape[2], k.shape[1] - q.shape[1]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    outputs = []
    for i in range(q.shape[1]):
        seen = slice(max(0, past + i - window), past + i + 1)
        keys, values = (x[:, seen].repeat_interleave(shared, dim=2) for x in (k, v))
        weights = (torch.einsum("bhd,bkhd->bhk", q[:, i], keys) * scale).softmax(dim=-1)
        outputs.append(torch.einsum("bhk,bkhd->bhd", weights, values))
    return torch.stack(outputs, dim=1)


def inputs(
    queries: int,
    keys: int,
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 16,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    batch: int = 2,
) -> list[Tensor]:
    """q, k, v that take gradients, and a gradient for the output."""
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    shapes = [(queries, heads[0]), (keys, heads[1]), (keys, heads[1]), (queries, heads[0])]
    tensors = [torch.randn(batch, t, h, head_dim, generator=generator) for t, h in shapes]
    tensors = [x.to(device, dtype) for x in tensors]
    return [x.requires_grad_() for x in tensors[:3]] + [tensors[3]]


def relative_error(ours: Tensor, true: Tensor) -> float:
    """Error as a share of the Frobenius norm."""
    ours, true = ours.detach().cpu().double(), true.detach().cpu().double()
    return float((ours - true).norm() / true.norm().clamp(min=1e-30))
