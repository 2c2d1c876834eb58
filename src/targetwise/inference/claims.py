"""The verdict on a claim: a prediction held against an interval, and all claims of a study together.

A claim is about a number per seed, x: ln left − ln right, or left − right. It predicts that the mean of x lies
below, above or within a bound. It is supported if a 95 % interval lies wholly where it predicts, contradicted if
wholly where it denies (by default: where it does not predict), and open otherwise. A false verdict on one claim has a
probability of at most 5 %; :func:`settle` makes that the probability of any in a whole study (Holm 1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from targetwise.inference.compare import holm
from targetwise.inference.quantiles import CONFIDENCE

SUPPORTED: Final = "supported"
CONTRADICTED: Final = "contradicted"
OPEN: Final = "open"

ERROR = 1 - CONFIDENCE


@dataclass(frozen=True)
class Region:
    """Where a claim says that a number lies: from ``low`` to ``high``, one of which may be infinite."""

    low: float
    high: float

    @classmethod
    def of(cls, bound: Mapping[str, float], *, logarithm: bool = False) -> "Region":
        """Return the region of e.g. ``{less: 0.9}``; of a ratio the region of its logarithm."""
        ((word, value),) = bound.items()
        value = math.log(value) if logarithm else float(value)
        return {"less": cls(-math.inf, value), "greater": cls(value, math.inf), "within": cls(-value, value)}[word]

    @property
    def outside(self) -> "tuple[Region, ...]":
        """Return all that is not in it."""
        below, above = Region(-math.inf, self.low), Region(self.high, math.inf)
        return tuple(part for part in (below, above) if part.low < part.high)


@dataclass(frozen=True)
class Finding:
    """What the seeds say of one claim.

    Attributes:
        seeds: how many the estimate is from.
        estimate: of the mean (or the deviation) of x.
        low: the lower end of its 95 % interval, NaN where there is none.
        high: the upper end.
        leaning: the verdict that ``p_value`` is about.
        p_value: the smallest error at which it would be given; NaN where nothing can be said.
    """

    seeds: int
    estimate: float
    low: float
    high: float
    leaning: str
    p_value: float


def of_mean(x: Sequence[float], predicted: Region, denied: Sequence[Region], *, chosen: bool = False) -> Finding:
    """Hold the mean of a number over seeds against a prediction, by Student's t.

    Args:
        x: one number per seed, about normal, and independent unless ``chosen``.
        predicted: where the mean is if the claim is right.
        denied: where it is if the claim is wrong; several regions count as one.
        chosen: whether each is of the variant that the other seeds chose. Any two then share all seeds but two, so
            they are alike, and the variance of their mean is more than s²/n: s²·(1/n + 1/(n − 1)), which takes their
            correlation for 1/n (Nadeau & Bengio 2003, Inference for the generalization error).
    """
    values = np.asarray(x, dtype=float)
    count = len(values)
    mean = float(values.mean()) if count else math.nan
    if count < 2:
        return _unknown(count, mean)
    error = float(values.std(ddof=1)) * math.sqrt(1 / count + (1 / (count - 1) if chosen else 0))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * error

    def beyond(bound: float, side: int) -> float:
        """Return the one-sided p-value of the mean being on the ``side`` of a bound."""
        if math.isinf(bound):
            return 0.0
        if error == 0:  # the same number with every seed, as of sizes in memory
            return 0.0 if (mean - bound) * side > 0 else 1.0
        return float(stats.t.sf((mean - bound) * side / error, count - 1))

    def within(region: Region) -> float:
        return max(beyond(region.low, 1), beyond(region.high, -1))

    return _finding(count, mean, mean - half, mean + half, within(predicted), min(map(within, denied)))


def of_deviation(x: Sequence[float], predicted: Region, denied: Sequence[Region]) -> Finding:
    """Hold the standard deviation of a number over seeds against a prediction, by its chi-squared distribution.

    Args:
        x: one number per seed, independent and normal.
        predicted: where the deviation is if the claim is right: from 0, or to infinity.
        denied: where it is if the claim is wrong.
    """
    values = np.asarray(x, dtype=float)
    count = len(values)
    if count < 2:
        return _unknown(count, math.nan)
    freedom, deviation = count - 1, float(values.std(ddof=1))
    squares = freedom * deviation**2
    tails = stats.chi2.ppf([0.5 + CONFIDENCE / 2, 0.5 - CONFIDENCE / 2], freedom)
    low, high = np.sqrt(squares / tails)

    def within(region: Region) -> float:
        above = float(stats.chi2.sf(squares / region.low**2, freedom)) if region.low > 0 else 0.0
        below = float(stats.chi2.cdf(squares / region.high**2, freedom)) if region.high < math.inf else 0.0
        return max(above, below)

    return _finding(count, deviation, float(low), float(high), within(predicted), min(map(within, denied)))


def of_shares(left: Sequence[float], right: Sequence[float], predicted: Region) -> Finding:
    """Hold the difference of two shares of seeds against 0 by Fisher's exact test; the interval is Newcombe's (1998).

    Args:
        left: for each seed 1 where it happened, else 0.
        right: the same of the other side.
        predicted: from or to 0: whether it happens more or less often on the left.
    """
    if min(len(left), len(right)) < 1:
        return _unknown(0, math.nan)
    counts, sizes = (int(sum(left)), int(sum(right))), (len(left), len(right))
    low, high = confint_proportions_2indep(counts[0], sizes[0], counts[1], sizes[1], method="newcomb", compare="diff")
    happened = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
    more, less = (float(stats.fisher_exact(happened, side).pvalue) for side in ("greater", "less"))
    supported, contradicted = (more, less) if predicted.low == 0 else (less, more)
    estimate = counts[0] / sizes[0] - counts[1] / sizes[1]
    return _finding(min(sizes), estimate, float(low), float(high), supported, contradicted)


def settle(findings: Sequence[Finding]) -> list[tuple[str, float]]:
    """Return verdict and adjusted p-value of each of a study's claims: at most 5 % of studies hold any that is false.

    Args:
        findings: of all claims, in all settings; those of which nothing is known stay open and do not count.
    """
    adjusted = holm([finding.p_value for finding in findings])
    return [
        (finding.leaning if p <= ERROR else OPEN, float(p)) for finding, p in zip(findings, adjusted, strict=True)
    ]


def unknown() -> Finding:
    """Return what stands for a claim of which nothing is known; it does not count for the others."""
    return _unknown(0, math.nan)


def withdrawn() -> Finding:
    """Return what stands for a claim that is judged no more: it counts for the others all the same."""
    return Finding(0, math.nan, math.nan, math.nan, OPEN, 1.0)


def holds(finding: Finding) -> bool:
    """Return whether a finding by itself supports its claim."""
    return finding.leaning == SUPPORTED and finding.p_value <= ERROR


def _finding(seeds: int, estimate: float, low: float, high: float, supported: float, contradicted: float) -> Finding:
    # Either verdict may be given, so each has half of the error: the 95 % interval lies wholly there.
    p = min(1.0, 2 * min(supported, contradicted))
    return Finding(seeds, estimate, low, high, SUPPORTED if supported <= contradicted else CONTRADICTED, p)


def _unknown(seeds: int, estimate: float) -> Finding:
    return Finding(seeds, estimate, math.nan, math.nan, OPEN, math.nan)
