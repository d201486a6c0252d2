"""From logits to a token: temperature, top-k, top-p, and one stream of chance for each text.

Sources: top-k (Fan et al., arXiv 1805.04833); top-p, or nucleus sampling (Holtzman et al.,
arXiv 1904.09751). Chapter: speedrun.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanogpt2.errors import UserError

SEEDS = 2**63
"""how many there are"""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn; raises UserError for values that mean nothing."""

    temperature: float = 1.0
    """logits are divided by it; 0 takes the likeliest token"""
    top_k: int | None = None
    """draw among the k likeliest tokens only"""
    top_p: float | None = None
    """draw among the likeliest tokens only, as many as it takes to hold this probability"""
    seed: int = 0
    """text i draws from its own stream, a function of the seed and i alone"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(
                f"temperature is {self.temperature}; it must be 0 (the likeliest token) or positive"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; it must be at least 1, or left out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed is {self.seed}; it must be from 0 to 2^63 - 1")


def candidates(logits_BV: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities (B, n), summing to 1 a row, and the tokens (B, n) they belong to.

    Temperature (positive here) first, then top-k, then top-p over what top-k left. Without the
    last two, n = V.
    """
    B, V = logits_BV.shape
    logits = logits_BV.float()
    # Subtracting first keeps tiny temperatures from overflowing; softmax does not see it.
    temperature = max(sampling.temperature, torch.finfo(torch.float32).tiny)  # not 0 / 0
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    if sampling.top_k is None and top_p == 1:
        return scaled.softmax(dim=-1), torch.arange(V, device=logits_BV.device).expand(B, V)
    scaled, tokens = scaled.topk(min(sampling.top_k or V, V), dim=-1)  # sorted, likeliest first
    probabilities = scaled.softmax(dim=-1)
    if top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities
        kept = before < top_p
        kept[:, 0] = True
        probabilities = probabilities * kept
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities, tokens


class Sampler:
    """Draws a token for each text; the same seed gives text i the same draws in any company."""

    def __init__(self, sampling: Sampling, n_texts: int) -> None:
        self.sampling = sampling
        # Neighbouring seeds would give seed s, text 1 the stream of seed s + 1, text 0.
        mixed = torch.Generator().manual_seed(sampling.seed)
        seeds = [int(torch.randint(2**62, (), generator=mixed)) for _ in range(n_texts)]
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, logits_BV: Tensor, texts: Sequence[int]) -> list[int]:
        """One token for each row of logits; ``texts[b]`` says which text row b belongs to."""
        if self.sampling.temperature == 0:
            return logits_BV.argmax(dim=-1).tolist()
        probabilities, tokens = candidates(logits_BV, self.sampling)
        chance = torch.cat([torch.rand(1, generator=self._streams[text]) for text in texts])
        return tokens.gather(1, draw(probabilities, chance[:, None]))[:, 0].tolist()


def draw(probabilities_BN: Tensor, chance_B1: Tensor) -> Tensor:
    """Indices (B, 1): where the running sum of probabilities passes ``chance`` in [0, 1).

    An index of probability 0 is never drawn.
    """
    total = probabilities_BN.cumsum(dim=-1)
    last = total[:, -1:]
    # The product may round up to the full sum, which nothing passes.
    target = torch.minimum(chance_B1.to(total) * last, last * (1 - 2**-23))
    return torch.searchsorted(total, target, right=True)
