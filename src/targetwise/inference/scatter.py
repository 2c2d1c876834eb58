"""Which variance a comparison is judged by, where variants may scatter unequally.

A rule that can be said before any value is there, chosen by simulation (docs/statistics.md has the figures):

1. ``paired``, each pair by the variance of its own differences, where that costs little: if its expected half-width
   is at most 20 % above the pooled one. It needs no equal scatter and depends on the design alone.
2. ``moderated``, from 8 variants on, where the variances of the pairs differ by more than chance: each is drawn
   towards their common value by empirical Bayes (Smyth 2004), with d_0 further degrees of freedom.
3. ``pooled``, one residual variance for all, otherwise: the variances differ no more than chance explains (d_0 is
   infinite), or there are too few variants to tell.

A test of equal scatter first and a fallback after it was tried and is worse: with 3 seeds it has little power, and
what it chooses depends on the same residuals that the interval is made of.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from targetwise.inference.blocks import Design

Array = np.ndarray

#: Half-widths of paired intervals may be this many times the pooled ones.
WIDER = 1.2

#: Fewer variants than this do not tell how variances are spread.
FEWEST_VARIANTS = 8


@dataclass(frozen=True)
class Differences:
    """Paired differences a − b over shared seeds, for tables (…, V, S); arrays (…, P) and (P,)."""

    mean: Array
    variance: Array
    seeds: Array


def differences(y: Array, design: Design, a: Array, b: Array) -> Differences:
    """Return mean and sample variance of a − b over the seeds that both have; NaN where there are fewer than two."""
    both = design.present[a] & design.present[b]
    seeds = both.sum(-1)
    of = np.where(both, np.where(both, y[..., a, :], 0.0) - np.where(both, y[..., b, :], 0.0), 0.0)
    mean = of.sum(-1) / np.maximum(seeds, 1)
    squares = np.where(both, of - mean[..., None], 0.0) ** 2
    variance = np.where(seeds > 1, squares.sum(-1) / np.maximum(seeds - 1, 1), np.nan)
    return Differences(np.where(seeds > 0, mean, np.nan), variance, seeds)


def prior(variance: Array, df: Array) -> tuple[Array, Array]:
    """Return s_0² and d_0 of the scaled inverse χ² from which variances (…, P) on ``df`` (P,) come.

    From the mean and variance of ln s² (Smyth 2004, section 6.2). d_0 is infinite where they vary no more than chance
    has them vary; s_0² is then not needed and NaN. Variances near 0 are lifted to 1e-5 of the median.
    """
    variance = np.maximum(variance, 1e-5 * np.median(variance, axis=-1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        e = np.log(variance) - digamma(df / 2) + np.log(df / 2)
        excess = e.var(-1, ddof=1) - polygamma(1, df / 2).mean()
    finite = excess > 0
    d_0 = np.where(finite, 2 * _inverse_trigamma(np.where(finite, excess, 1.0)), np.inf)
    half = np.where(finite, d_0 / 2, 1.0)
    return np.where(finite, np.exp(e.mean(-1) + digamma(half) - np.log(half)), np.nan), d_0


def moderated(variance: Array, df: Array, s_0: Array, d_0: Array) -> tuple[Array, Array]:
    """Return moderated variances (d_0·s_0² + d·s²)/(d_0 + d) and their df; NaN where d_0 is infinite."""
    d_0 = np.where(np.isfinite(d_0), d_0, np.nan)[..., None]
    return (d_0 * s_0[..., None] + df * variance) / (d_0 + df), d_0 + df


def mean_deviation(df: float) -> float:
    """Return E[s]/σ of a sample deviation on ``df`` degrees of freedom, √(2/df)·Γ((df + 1)/2)/Γ(df/2)."""
    return float(np.sqrt(2 / df) * np.exp(gammaln((df + 1) / 2) - gammaln(df / 2)))


def _inverse_trigamma(x: Array) -> Array:
    """Solve trigamma(y) = x for x > 0 by Newton's method, which converges from below (Smyth 2004, appendix)."""
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / x) / polygamma(2, y)
        y = y + step
        if np.max(-step / y) < 1e-8:
            break
    return np.asarray(y)
