"""Laws fitted to small runs: L(N, D), iso-FLOP parabolas, the critical batch, the best rate.

Hoffmann et al. (2203.15556, "Chinchilla", sections 3.2 and 3.3) for the first two; McCandlish et
al. (1812.06162, section 2.3) for the batch. Intervals are bootstrapped (Efron, 1979): runs are
drawn with replacement, and the law is fitted to each draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nanogpt2.errors import UserError

DRAWS = 200
HUBER = 1e-3
"""beyond so large an error of log L a run counts by its distance, not its square (2203.15556)"""
Run = TypeVar("Run")
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def __call__(self, N: Any, D: Any) -> Any:
        """Bits per byte of N parameters after D tokens."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    @property
    def exponent(self) -> float:
        """a in N_best ~ C^a, where C ~ N D: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    def best(self, C: float) -> tuple[float, float]:
        """(N, D) of the lowest loss that C = 6 N D FLOPs can buy (2203.15556, equation 4)."""
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N = scale * (C / 6) ** self.exponent
        return N, C / (6 * N)

    def compute_factor(self, off: float) -> float:
        """Compute that a model of ``off`` times the best size needs to end as low as the best.

        As a multiple, trained on tokens / ``off`` and both enlarged along C ~ N D; of no budget,
        because the excess over E falls as a power of C.
        """
        excess = self.exponent * off**-self.alpha + (1 - self.exponent) * off**self.beta
        return float(excess ** ((self.alpha + self.beta) / (self.alpha * self.beta)))


def fit_law(
    N: Sequence[float], D: Sequence[float], bpb: Sequence[float], near: Law | None = None
) -> Law:
    """Least Huber error of log L (Chinchilla's third approach), from several starts or one law.

    Over logarithms of the coefficients, so that none is negative; UserError with fewer than five
    different (N, D), which five numbers would fit whatever the runs say, or where nothing in the
    runs holds an exponent.
    """
    from scipy.optimize import minimize
    from scipy.special import huber, logsumexp, softmax

    if len(set(zip(N, D, strict=True))) < 5:
        raise UserError(f"five numbers cannot be fitted to so few runs ({len(bpb)}); record more")
    log_N, log_D, log_L = np.log(N), np.log(D), np.log(bpb)
    middle_N, middle_D = float(log_N.mean()), float(log_D.mean())

    away_N, away_D, ones = log_N - middle_N, log_D - middle_D, np.ones_like(log_N)

    def error(at: Any) -> tuple[float, Any]:
        """With its gradient."""
        e, a, alpha, b, beta = at
        terms = np.stack([e * ones, a - alpha * away_N, b - beta * away_D])
        off = logsumexp(terms, axis=0) - log_L
        by_e, by_a, by_b = softmax(terms, axis=0) * np.clip(off, -HUBER, HUBER) / HUBER
        gradient = [by_e, by_a, -by_a * away_N, by_b, -by_b * away_D]
        return float(huber(HUBER, off).sum()) / HUBER, np.sum(gradient, axis=1)

    lowest = float(log_L.min())
    starts = [
        (lowest + np.log(share), lowest - 1.5, alpha, lowest - 1.5, beta)
        for share in (0.3, 0.6, 0.9)
        for alpha in (0.2, 0.5)
        for beta in (0.2, 0.5)
    ]
    if near:
        a, b = np.log(near.A) - near.alpha * middle_N, np.log(near.B) - near.beta * middle_D
        starts = [(np.log(near.E), a, near.alpha, b, near.beta)]
    # BFGS is plain numpy; L-BFGS-B lets two threads wait for each other over five numbers
    ends = [minimize(error, start, method="BFGS", jac=True) for start in starts]
    e, a, alpha, b, beta = map(float, min(ends, key=lambda end: float(end.fun)).x)
    with np.errstate(over="ignore"):
        A, B = np.exp(a + alpha * middle_N), np.exp(b + beta * middle_D)
    if not (np.isfinite(A) and np.isfinite(B)):
        raise UserError("these runs leave the exponents open; record more sizes and budgets")
    return Law(float(np.exp(e)), float(A), alpha, float(B), beta)


def bowl(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(x, y) of the lowest point of the parabola of least squares, y against x.

    UserError where fewer than three x are different, or the lowest point does not lie between them:
    then the best is not bracketed, and a number would be a guess.
    """
    if len(set(x)) < 3:
        raise UserError(f"a parabola needs three places, not {len(set(x))}; record more runs")
    middle = float(np.mean(x))
    bend, slope, height = map(float, np.polyfit(np.asarray(x) - middle, y, 2))
    if bend <= 0 or not min(x) <= (best := middle - slope / (2 * bend)) <= max(x):
        raise UserError("the lowest point is not between the first and the last; widen the search")
    return best, height - slope**2 / (4 * bend)


def valley(x: Sequence[float], y: Sequence[float], reach: int = 2) -> tuple[float, float]:
    """``bowl`` of the lowest run and ``reach`` places on each side; runs at one x are averaged.

    Far from its lowest point no valley is a parabola. Raises what ``bowl`` raises.
    """
    return bowl(*near_lowest(x, y, reach))


def near_lowest(
    x: Sequence[float], y: Sequence[float], reach: int = 2
) -> tuple[list[float], list[float]]:
    """The (x, y) that ``valley`` takes."""
    places = sorted(set(x))
    at = {place: [v for u, v in zip(x, y, strict=True) if u == place] for place in places}
    means = [sum(at[place]) / len(at[place]) for place in places]
    lowest = min(range(len(means)), key=means.__getitem__, default=0)
    near = slice(max(0, lowest - reach), lowest + reach + 1)
    return places[near], means[near]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """k of y ~ x^k, by least squares of the logarithms; UserError with fewer than two x."""
    if len(set(x)) < 2:
        raise UserError("an exponent needs two places; record more runs")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def critical_batch(batch: Sequence[float], tokens: Sequence[float]) -> tuple[float, float]:
    """(critical batch, fewest tokens), where tokens to a loss = fewest (1 + batch / critical).

    At the critical batch a run takes twice the fewest tokens and twice the fewest steps (McCandlish
    et al., equation 2.11). Relative errors count alike. Infinite where tokens do not grow with the
    batch; UserError with fewer than two batches, or where they grow more than in proportion.
    """
    if len(set(batch)) < 2:
        raise UserError("a critical batch needs runs of two batches; record more")
    rise, fewest = map(float, np.polyfit(batch, tokens, 1, w=1 / np.asarray(tokens)))
    if fewest <= 0:
        raise UserError("tokens grow more than in proportion; the critical batch is out of range")
    return fewest / rise if rise > 0 else math.inf, fewest


def tokens_to_reach(wanted: float, tokens: Sequence[float], bpb: Sequence[float]) -> float | None:
    """Tokens of a run that ends at ``wanted``, between runs of several lengths; else None.

    Straight between neighbours, over the logarithm of the tokens.
    """
    order = np.argsort(tokens)
    x, y = np.log(np.asarray(tokens)[order]), np.asarray(bpb)[order]
    if (np.diff(y) >= 0).any() or not y[-1] <= wanted <= y[0]:
        return None
    return float(np.exp(np.interp(-wanted, -y, x)))


def bootstrapped(
    runs: Sequence[Run], *names: str, numbers: Callable[[Sequence[Run]], Floats]
) -> dict[str, dict[str, float | None] | None]:
    """Name -> one of the ``numbers`` of the runs, and the middle 95% of it over draws of runs.

    Runs are drawn with replacement; ``draws`` says how many draws gave a number, which may be
    infinite: then the interval has no end, ``high`` None. None where the runs themselves do not
    give a finite one yet (UserError); no interval where no draw does.
    """
    try:
        values = numbers(runs)
    except UserError:
        return dict.fromkeys(names)
    if not np.isfinite(values).all():
        return dict.fromkeys(names)
    random, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = [runs[i] for i in random.integers(0, len(runs), len(runs))]
        with suppress(UserError):
            found.append(numbers(drawn))
    ends: Any = [(None, None)] * len(names)
    if found:
        ends = np.percentile(found, [2.5, 97.5], axis=0, method="nearest").T.tolist()
    return {
        name: {"value": value, "low": low, "high": _finite(high), "draws": len(found)}
        for name, value, (low, high) in zip(names, values, ends, strict=True)
    }


def _finite(end: float | None) -> float | None:
    return end if end is not None and math.isfinite(end) else None
