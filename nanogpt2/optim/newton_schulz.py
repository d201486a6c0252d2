"""Newton-Schulz: the orthogonal factor by one polynomial again and again, as Muon began.

Its three coefficients (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon) were chosen for a
steep start: singular values end anywhere between about 0.7 and 1.2. Polar Express replaced it by a
different polynomial for every step. Chapter: muon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanogpt2.optim.polar_express import scaled_down

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    g: Tensor,
    iterations: int = 5,
    divisor: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Approximate U V^T of each matrix in ``g`` (K, rows, cols); arguments of ``polar_express``."""
    a, b, c = COEFFICIENTS
    x = scaled_down(g, divisor, dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT.contiguous() if tall else x
