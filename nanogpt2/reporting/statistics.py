"""What runs tell about a difference, and what they do not: pairs, intervals, multipliers.

Arms of a comparison share their seeds (start values, order of the text) and the held-out text, so
that what a seed does to both cancels: differences are taken seed by seed. Student's t gives the
interval (Student, 1908, "The probable error of a mean"); Holm (1979, "A simple sequentially
rejective multiple test procedure") guards a table of many. Chapter: core.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanogpt2.errors import UserError

LEVEL, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Comparison:
    """The first arm minus the second, over seeds that both have."""

    difference: float
    """mean over seeds"""
    margin: float
    """half of the 95% t interval around it; infinite with one seed"""
    p: float
    """probability of a mean as far from zero, were there no difference; 1 with one seed"""
    deviation: float
    """standard deviation of the difference over seeds; infinite with one seed"""
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.difference) > self.margin

    @property
    def interval(self) -> str:
        """As text."""
        if math.isinf(self.margin):
            return "one seed: none"
        low, high = self.difference - self.margin, self.difference + self.margin
        return f"{low:+.4f} to {high:+.4f}"

    def __str__(self) -> str:
        said = f"{self.difference:+.4f} ({self.interval}, {_seeds(self.seeds)})"
        return said if self.distinguishable else f"not distinguishable: {said}"


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The mean of ``first`` minus ``second``, paired: both have one value a seed, in one order.

    UserError where they have not, or a value is not finite.
    """
    from scipy import stats  # a second of import, which few pages need

    if len(first) != len(second) or not first:
        raise UserError(
            f"{len(first)} values cannot be paired with {len(second)}; give one for each seed"
        )
    apart = [a - b for a, b in zip(first, second, strict=True)]
    if not all(map(math.isfinite, apart)):
        raise UserError("a value that is not finite cannot be compared; leave its seed out")
    count, mean = len(apart), statistics.fmean(apart)
    if count == 1:
        return Comparison(mean, math.inf, 1.0, math.inf, 1)
    deviation = statistics.stdev(apart)
    error = deviation / math.sqrt(count)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return Comparison(mean, margin, p, deviation, count)


def holm(ps: Sequence[float]) -> list[float]:
    """Probabilities adjusted for their number, in the given order.

    Of those below 0.05 even one is a false find in at most one table of twenty.
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def verdicts(
    found: Mapping[str, Comparison], diverged: Mapping[str, Sequence[int]] | None = None
) -> dict[str, str]:
    """Name -> better, worse (less is better) or not distinguishable, judged as one table.

    ``diverged``: seeds of which a run ended without a number. Where there are any, this is the
    verdict, since a mean over those that survived is none.
    """
    adjusted = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    said = {}
    for name, each in found.items():
        word = "better" if each.difference < 0 else "worse"
        if not each.distinguishable:
            word = "not distinguishable"
        elif adjusted[name] > 1 - LEVEL:
            word += ", were it the only question"
        said[name] = word
    for name, seeds in (diverged or {}).items():
        whole = len(seeds) + (found[name].seeds if name in found else 0)
        said[name] = f"{len(seeds)} of {_seeds(whole)} diverged"
    return said


def seeds_needed(effect: float, deviation: float, arms: int = 1) -> int:
    """How many seeds show an ``effect`` in four of five tries, at 95%.

    ``deviation`` is that of the paired difference (``arms`` 1): the power is that of Student's
    test, by the noncentral t. Or it is the known one of a run, where two arms do not share seeds
    (``arms`` 2: so many each, by the normal distribution). UserError without an effect, or where
    the deviation is infinite, as one seed's is.
    """
    if not (effect and math.isfinite(effect) and math.isfinite(deviation)):
        raise UserError(
            f"an effect of {effect} with a deviation of {deviation} has no number of seeds; give "
            "an effect other than zero, and a deviation from at least two seeds"
        )
    normal = statistics.NormalDist()
    sigmas = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)
    seeds = max(2, math.ceil(arms * (sigmas * deviation / effect) ** 2))
    while arms == 1 and _power(abs(effect) / deviation if deviation else math.inf, seeds) < POWER:
        seeds += 1  # the normal distribution asks for a few less
    return seeds


def _power(sigmas: float, seeds: int) -> float:
    """How often pairs find an effect of so many deviations of their difference."""
    from scipy import stats

    if math.isinf(sigmas):
        return 1.0
    bound = stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    return float(stats.nct.sf(bound, seeds - 1, sigmas * math.sqrt(seeds)))


def compute_to_reach(bpb: float, curve: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """Compute at which a baseline ends at ``bpb``, and whether that is beyond what was run.

    ``curve`` holds (compute, bits per byte) of at least two whole runs of the baseline, each with
    its own schedule; between them, and beyond, it is straight in log-log. Raises UserError where
    more compute did not lower the bits.
    """
    points = sorted((math.log(compute), math.log(end)) for compute, end in curve)
    if len(points) < 2 or any(b[1] >= a[1] for a, b in zip(points, points[1:], strict=False)):
        raise UserError("a baseline needs at least two runs, each better than the one before it")
    wanted = math.log(bpb)
    i = sum(wanted < end for _, end in points[1:-1])
    (x0, y0), (x1, y1) = points[i], points[i + 1]
    outside = not points[-1][1] <= wanted <= points[0][1]
    return math.exp(x0 + (wanted - y0) / (y1 - y0) * (x1 - x0)), outside


@dataclass(frozen=True)
class Multiplier:
    """How many times a variant's compute its baseline needs for the same result."""

    value: float
    """above 1 the variant saves compute; geometric mean over seeds"""
    low: float
    high: float
    """of the 95% t interval of its logarithm"""
    extrapolated: bool

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return f"{self.value:.2f}{' (extrapolated)' * self.extrapolated}"
        span = f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} ({span}{', extrapolated' * self.extrapolated})"


def multiplier(ratios: Sequence[float], extrapolated: bool = False) -> Multiplier:
    """From one ratio of compute a seed."""
    found = compare([math.log(ratio) for ratio in ratios], [0.0] * len(ratios))
    low, high = found.difference - found.margin, found.difference + found.margin
    return Multiplier(math.exp(found.difference), _exp(low), _exp(high), extrapolated)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
