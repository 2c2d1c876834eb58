"""The largest of several t statistics that share one variance estimate: its distribution and its quantiles.

With normal Z of variance 1 and s² ~ χ²(df)/df independent of them, P(max |Z_i|/s ≤ c) = E_s[G(c·s)], where
G(x) = P(max |Z_i| ≤ x). A law below is such a G; the mean over s is a Gauss–Legendre sum of a cubic spline through G.
Both errors are below 1e-5 up to 200 variants.
"""

import functools
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import optimize, stats
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

Array = np.ndarray

CONFIDENCE = 0.95

#: Where every law is 1.
LARGEST = 10.0

#: Points of a law that has no one-dimensional integral: a scrambled Sobol sequence, the same in every run.
DRAWS = 2**15


class Law(Hashable, Protocol):
    """The distribution of the largest |Z|; hashable, so that its quantiles are computed once."""

    def normal(self, x: Array) -> Array:
        """Return P(largest ≤ x) where the variance is known, in the shape of ``x``."""


@dataclass(frozen=True)
class Range:
    """All pairs of ``variants`` independent effects (Tukey): the largest |Z_a − Z_b|/√2."""

    variants: int

    def normal(self, x: Array) -> Array:
        """P = k∫φ(u)[Φ(u + √2·x) − Φ(u)]^(k−1)du."""
        u, weights = _normal_nodes()
        between = ndtr(u + np.sqrt(2) * x[..., None]) - ndtr(u)
        return np.asarray(self.variants * between ** (self.variants - 1) @ weights)


@dataclass(frozen=True)
class Control:
    """Comparisons with one control (Dunnett) whose correlations are products λ_i·λ_j: ½ where the design is complete.

    The largest |Z_i| where ``two_sided``, else the largest Z_i.
    """

    loadings: tuple[float, ...]
    two_sided: bool = True

    def normal(self, x: Array) -> Array:
        """P = ∫φ(u)∏[Φ((x − λ_i·u)/√(1 − λ_i²)) − Φ((−x − λ_i·u)/√(1 − λ_i²))]du (Dunnett 1955)."""
        u, weights = _normal_nodes()
        product = np.ones((*x.shape, len(u)))
        for loading, times in Counter(self.loadings).items():
            rest = np.sqrt(1 - loading**2)
            below = ndtr((x[..., None] - loading * u) / rest)
            above = ndtr((-x[..., None] - loading * u) / rest) if self.two_sided else 0.0
            product *= (below - above) ** times
        return np.asarray(product @ weights)


@dataclass(frozen=True)
class Sampled:
    """Comparisons with any correlation (its rows), by quasi-random points; one-sided as :class:`Control` is."""

    correlation: tuple[tuple[float, ...], ...]
    two_sided: bool = True

    def normal(self, x: Array) -> Array:
        """Return the share of points whose largest is at most ``x``."""
        largest = _largest(self)
        return np.asarray(np.searchsorted(largest, x, side="right") / len(largest))


@dataclass(frozen=True)
class Joint:
    """A family whose t statistics share one variance estimate.

    Attributes:
        law: of the largest |t|, for differences.
        one_sided: of the worst arrangement of one-sided comparisons, for equivalence; None takes ``law`` two-sided at
            90 %, which for all pairs bounds it: at most k²/4 of their k(k − 1) directions can be wrong at once.
    """

    law: Law
    one_sided: Law | None = None

    def difference(self, df: float) -> float:
        """Return the half-width of simultaneous 95 % intervals, in standard errors."""
        return critical(self.law, df, CONFIDENCE)

    def equivalence(self, df: float) -> float:
        """Return the half-width in standard errors with which any false equivalence has at most 5 %."""
        if self.one_sided is None:
            return critical(self.law, df, 2 * CONFIDENCE - 1)
        return critical(self.one_sided, df, CONFIDENCE)

    def p_values(self, t: Array, df: float) -> Array:
        """Return P(largest |t| of the family ≥ |t|)."""
        return 1 - inside(self.law, np.abs(t), df)


@dataclass(frozen=True)
class Separate:
    """A family of so many t statistics, each with a variance of its own (Bonferroni)."""

    comparisons: int

    def difference(self, df: Array | float) -> Array | float:
        """Return the half-width of simultaneous 95 % intervals, in standard errors."""
        return stats.t.isf((1 - CONFIDENCE) / 2 / self.comparisons, df)

    def equivalence(self, df: Array | float) -> Array | float:
        """Return the half-width in standard errors with which any false equivalence has at most 5 %."""
        return stats.t.isf((1 - CONFIDENCE) / self.comparisons, df)

    def p_values(self, t: Array, df: Array | float) -> Array:
        """Return the p-values times the number of comparisons, at most 1."""
        return np.minimum(2 * self.comparisons * stats.t.sf(np.abs(t), df), 1.0)


def all_pairs(variants: int) -> Joint:
    """Return the family of all pairs of so many variants (Tukey; Tukey–Kramer where the design is not complete)."""
    return Joint(Range(variants))


def with_control(correlation: Array) -> Joint:
    """Return the family of comparisons with one control (Dunnett) whose estimates have this correlation matrix.

    For equivalence every other comparison is turned around: which directions matter is not known, and opposite ones,
    being correlated negatively, are the worst case.
    """
    signs = np.resize([1.0, -1.0], len(correlation))
    return Joint(_law(correlation, two_sided=True), _law(signs[:, None] * correlation * signs, two_sided=False))


def with_control_complete(others: int) -> Joint:
    """Return :func:`with_control` for a complete design: correlation ½."""
    return with_control(0.5 * (np.eye(others) + 1))


def _law(correlation: Array, two_sided: bool) -> Law:
    loadings = _loadings(correlation)
    if loadings is not None:
        return Control(tuple(loadings.round(12).tolist()), two_sided)
    return Sampled(tuple(tuple(row) for row in correlation.round(12).tolist()), two_sided)


def inside(law: Law, c: Array | float, df: float) -> Array:
    """Return P(largest |t| ≤ c) for every c ≥ 0, where all t share a variance on ``df`` ≥ 1 degrees of freedom."""
    s, weights = scale_nodes(df)
    x = np.minimum(np.asarray(c, dtype=float)[..., None] * s, LARGEST)
    return np.clip(_curve(law)(x) @ weights, 0.0, 1.0)


@functools.lru_cache(maxsize=4096)
def critical(law: Law, df: float, level: float) -> float:
    """Return the c with P(largest |t| ≤ c) = ``level``."""
    high = 4.0
    while inside(law, high, df) < level:
        high *= 2
    return float(optimize.brentq(lambda c: float(inside(law, c, df)) - level, 0.0, high, xtol=1e-7))


@functools.lru_cache(maxsize=256)
def scale_nodes(df: float) -> tuple[Array, Array]:
    """Return points and weights (they sum to 1) for a mean over s = √(χ²(df)/df)."""
    low, high = (np.sqrt(tail(1e-12, df) / df) for tail in (stats.chi2.ppf, stats.chi2.isf))
    nodes, weights = _legendre()
    s = low + (high - low) * (nodes + 1) / 2
    weights = weights * stats.chi2.pdf(df * s**2, df) * s
    return s, weights / weights.sum()


@functools.lru_cache(maxsize=256)
def _curve(law: Law) -> CubicSpline:
    x = np.linspace(0.0, LARGEST, 501)
    return CubicSpline(x, law.normal(x))


@functools.cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(96)
    return nodes, weights


@functools.cache
def _normal_nodes() -> tuple[Array, Array]:
    nodes, weights = _legendre()
    u = 8.0 * nodes
    weights = weights * np.exp(-(u**2) / 2)
    return u, weights / weights.sum()


def _loadings(correlation: Array) -> Array | None:
    """Return the λ with ρ_ij = λ_i·λ_j, or None where there are none."""
    count = len(correlation)
    if count == 1:
        return np.zeros(1)
    i, j = np.triu_indices(count, 1)
    products = correlation[i, j]
    signs = np.sign(correlation[0])
    if (products == 0).any():
        return None
    equations = np.zeros((len(i), count))
    equations[np.arange(len(i)), i] = equations[np.arange(len(i)), j] = 1
    loadings = signs * np.exp(np.linalg.lstsq(equations, np.log(np.abs(products)), rcond=None)[0])
    fits = np.abs(loadings[i] * loadings[j] - products).max() < 1e-9 and np.abs(loadings).max() < 0.999
    return np.asarray(loadings) if fits else None


def _largest(law: Sampled) -> Array:
    """Return the sorted largest |Z| (or ±Z) of every point."""
    correlation = np.array(law.correlation)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    uniform = stats.qmc.Sobol(len(root), scramble=True, rng=0).random(DRAWS)
    z = stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12)) @ root.T
    return np.sort(np.abs(z).max(-1) if law.two_sided else z.max(-1))
