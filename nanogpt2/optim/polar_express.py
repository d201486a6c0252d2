"""Polar Express: the orthogonal factor of a matrix by five cheap polynomial steps.

For X = U S V^T it approximates U V^T, using only products: each step maps every singular value s
to a s + b s^3 + c s^5. The coefficients are the minimax choice, step by step, for singular values
in [0.001, 1] (Amsel et al., arXiv 2505.16932), with the paper's safety factor. The result's
singular values lie near 1, not at 1: Muon needs no more. Chapter: muon.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


LARGE_SIDE = 512
"""on a processor, from this shorter side on, symmetric products are done by halves"""
RESTART = 3
"""the Gram form goes back to the matrix after this many steps, before its error grows"""


def polar_express(
    g: Tensor,
    iterations: int = 5,
    divisor: float = 1.02,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Approximate U V^T of each matrix in ``g`` (K, rows, cols), computed in ``dtype``.

    ``divisor`` keeps the largest singular value below 1 when the products round (bf16): above 1
    the first polynomial sends it off. The products are taken on the shorter side.

    On a processor, large matrices skip most of the mirrored half of every symmetric product, and
    oblong ones take the same polynomial in Gram form, which needs 40% less time (see
    ``_gram_form``). In bf16, against float64, the Gram form is off by 4% in Frobenius norm on
    Gaussian matrices where the direct form is off by 1%, and both by 8% on spectra over four
    decades: ``python -m benchmarks.muon`` prints it.
    """
    x = g / (divisor * torch.linalg.matrix_norm(g.float(), keepdim=True) + 1e-6)
    x = x.to(dtype)
    steps = COEFFICIENTS[:iterations]
    tall = x.size(-2) > x.size(-1)
    if x.device.type == "cpu" and min(x.shape[-2:]) >= LARGE_SIDE:
        for each in x.flatten(0, -3):  # one at a time: what it needs stays in the cache
            wide = each.mT if tall else each
            wide.copy_(_wide_by_halves(wide, steps))
        return x
    # contiguous: what follows goes over the step and the weights side by side
    return _wide(x.mT, steps).mT.contiguous() if tall else _wide(x, steps)


def _wide(x: Tensor, steps: Sequence[tuple[float, float, float]]) -> Tensor:
    """The iteration for rows <= cols, all products on the left."""
    for a, b, c in steps:
        gram = x @ x.mT
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2
        x = torch.baddbmm(x, poly, x, beta=a)  # a X + (bA + cA^2) X
    return x


def _wide_by_halves(x: Tensor, steps: Sequence[tuple[float, float, float]]) -> Tensor:
    """The same for one matrix, by symmetric products; in Gram form where the long side costs."""
    if x.size(-1) >= 2 * x.size(-2):
        for first in range(0, len(steps), RESTART):
            x = _gram_form(x, steps[first : first + RESTART])
        return x
    for a, b, c in steps:
        gram = _symmetric(x, x.mT)
        x = torch.addmm(x, _symmetric(gram, gram, gram, b, c), x, beta=a)
    return x


def _gram_form(x: Tensor, coefficients: Sequence[tuple[float, float, float]]) -> Tensor:
    """The same steps with two products of the long side in all: X <- (P_n ... P_1) X.

    Each step is X <- P X with P = aI + bA + cA^2 and A = X X^T, and then A <- P A P. All of them
    are polynomials of one symmetric matrix: they commute, and every product is symmetric.
    """
    gram = _symmetric(x, x.mT)
    total: Tensor | None = None
    for i, (a, b, c) in enumerate(coefficients):
        poly = _symmetric(gram, gram, gram, b, c)
        if i + 1 < len(coefficients):
            half = _symmetric(poly, gram, gram, a)  # P A
            gram = _symmetric(half, poly, half, a)  # P A P
        if total is None:
            total = poly
            total.diagonal().add_(a)
        else:
            total = _symmetric(poly, total, total, a)
    return x if total is None else total @ x


def _symmetric(
    left: Tensor, right: Tensor, add: Tensor | None = None, beta: float = 0.0, alpha: float = 1.0
) -> Tensor:
    """beta add + alpha left @ right, known to be symmetric: a third of it is copied over."""
    size = left.size(0)
    out = left.new_empty(size, size)
    corners = [0, size // 3, 2 * size // 3, size]
    for top, end in zip(corners, corners[1:], strict=False):
        a, b, block = left[top:end], right[:, :end], out[top:end, :end]
        if add is None:
            torch.mm(a, b, out=block)
        else:
            torch.addmm(add[top:end, :end], a, b, beta=beta, alpha=alpha, out=block)
        out[:top, top:end] = out[top:end, :top].mT
    return out
