"""Polar Express: the orthogonal factor of a matrix by five cheap polynomial steps.

For X = U S V^T it approximates U V^T, using only products: each step maps every singular value s
to a s + b s^3 + c s^5. The coefficients are the minimax choice, step by step, for singular values
in [0.001, 1] (Amsel et al., arXiv 2505.16932), with a safety factor of 1.02. The result's
singular values lie near 1, not at 1: Muon needs no more. Chapter: muon.
"""

from __future__ import annotations

import torch
from torch import Tensor

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def polar_express(
    g: Tensor,
    iterations: int = 5,
    divisor: float = 1.02,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Approximate U V^T of each matrix in ``g`` (K, rows, cols), computed in ``dtype``.

    ``divisor`` keeps the largest singular value below 1 when the products round (bf16): above 1
    the first polynomial sends it off. The products are taken on the shorter side.
    """
    x = scaled_down(g, divisor, dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    for a, b, c in COEFFICIENTS[:iterations]:
        gram = x @ x.mT
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b A + c A^2
        x = torch.baddbmm(x, poly, x, beta=a)  # a X + (b A + c A^2) X
    # contiguous: what follows goes over the step and the weights side by side
    return x.mT.contiguous() if tall else x


def scaled_down(g: Tensor, divisor: float, dtype: torch.dtype) -> Tensor:
    """``g`` over ``divisor`` times its Frobenius norm: no singular value is above 1/``divisor``."""
    norm = torch.linalg.matrix_norm(g.float(), keepdim=True)
    return (g / (divisor * norm + 1e-6)).to(dtype)
