"""Simultaneous intervals of the differences of a family of comparisons, for one table or a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targetwise.inference import scatter
from targetwise.inference.blocks import Design
from targetwise.inference.quantiles import Joint, Separate, all_pairs, with_control

Array = np.ndarray

POOLED, MODERATED, PAIRED = "pooled", "moderated", "paired"

#: Fewer shared seeds give no interval.
FEWEST_SEEDS = 2


@dataclass(frozen=True)
class Family:
    """Comparisons of variants a_i with b_i, rows of the table, over which the confidence holds together.

    Attributes:
        name: what the table of comparisons calls it.
        a: first variants.
        b: second variants; all the same one if ``baseline``.
        baseline: comparisons with one variant (Dunnett) or all pairs of several (Tukey).
    """

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    baseline: bool = False

    def judged(self, design: Design) -> Array:
        """Return which comparisons (P,) have an interval: two shared seeds or more, and degrees of freedom."""
        a, b = np.array(self.a, dtype=int), np.array(self.b, dtype=int)
        return np.asarray((design.shared[a, b] >= FEWEST_SEEDS) & (design.df > 0))


@dataclass(frozen=True)
class Rule:
    """Which variance each of N tables is judged by.

    Attributes:
        method: ``pooled``, ``moderated`` or ``paired``.
        s_0: the common variance of pairs to which a moderated one is drawn, else NaN.
        d_0: with how many degrees of freedom; infinite where the variances differ no more than chance has them
            differ, NaN where that was not asked.
    """

    method: Array
    s_0: Array
    d_0: Array


@dataclass(frozen=True)
class Intervals:
    """Differences a − b (N, P) of a family, NaN where there is no interval.

    Attributes:
        estimate: of the difference.
        error: its standard error.
        df: degrees of freedom of the error.
        half: half-width of the simultaneous 95 % interval.
        equivalence_half: half-width of the interval for equivalence, 90 % simultaneously.
    """

    estimate: Array
    error: Array
    df: Array
    half: Array
    equivalence_half: Array


def rule(y: Array, design: Design, families: Sequence[Family]) -> Rule:
    """Choose the variance for tables ``y`` (N, V, S), by the rule that :mod:`.scatter` declares."""
    unknown = np.full(len(y), np.nan)
    if all(_paired_costs_little(design, family) for family in families):
        return Rule(np.full(len(y), PAIRED), unknown, unknown)
    a, b = np.triu_indices(len(design.present), 1)
    enough = design.shared[a, b] >= FEWEST_SEEDS
    a, b = a[enough], b[enough]
    if len(np.union1d(a, b)) < scatter.FEWEST_VARIANTS:
        return Rule(np.full(len(y), POOLED), unknown, unknown)
    of = scatter.differences(y, design, a, b)
    s_0, d_0 = scatter.prior(of.variance, of.seeds - 1.0)
    return Rule(np.where(np.isfinite(d_0), MODERATED, POOLED), s_0, d_0)


def law(design: Design, family: Family, method: str) -> Joint | Separate:
    """Return the joint distribution of the comparisons that have an interval, of which there must be one."""
    a, b = _sides(design, family)
    if method != POOLED:
        return Separate(len(a))
    return with_control(design.correlation(a, b)) if family.baseline else all_pairs(len(np.union1d(a, b)))


def intervals(y: Array, design: Design, family: Family, by: Rule) -> Intervals:
    """Return the intervals of a family for tables ``y`` (N, V, S), each by its method."""
    judged = family.judged(design)
    estimate, error, df, half, equivalence_half = (np.full((len(y), len(judged)), np.nan) for _ in range(5))
    for method in np.unique(by.method) if judged.any() else ():
        rows = by.method == method
        of = _pooled if method == POOLED else _separate
        where, joint = np.ix_(rows, judged), law(design, family, method)
        estimate[where], error[where], df[where] = of(
            y[rows], design, family, Rule(method, by.s_0[rows], by.d_0[rows])
        )
        freedom = float(design.df) if method == POOLED else df[where]
        half[where] = joint.difference(freedom) * error[where]
        equivalence_half[where] = joint.equivalence(freedom) * error[where]
    return Intervals(estimate, error, df, half, equivalence_half)


def _pooled(y: Array, design: Design, family: Family, by: Rule) -> tuple[Array, Array, Array]:
    """Least squares with one residual variance for all."""
    a, b = _sides(design, family)
    effects, residuals = design.fit(y)
    variance = (residuals**2).sum((-1, -2)) / design.df
    error = np.sqrt(variance[:, None] * design.variance(a, b))
    return effects[:, a] - effects[:, b], error, np.full(error.shape, float(design.df))


def _separate(y: Array, design: Design, family: Family, by: Rule) -> tuple[Array, Array, Array]:
    """Differences over shared seeds, each with its own variance, moderated or as it is."""
    of = scatter.differences(y, design, *_sides(design, family))
    df = of.seeds - 1.0
    if by.method == MODERATED:
        variance, freedom = scatter.moderated(of.variance, df, by.s_0, by.d_0)
    else:
        variance, freedom = of.variance, np.broadcast_to(df, of.variance.shape)
    return of.mean, np.sqrt(variance / of.seeds), freedom


def _sides(design: Design, family: Family) -> tuple[Array, Array]:
    judged = family.judged(design)
    return np.array(family.a)[judged], np.array(family.b)[judged]


def _paired_costs_little(design: Design, family: Family) -> bool:
    """Compare expected half-widths, paired over pooled, where the fewest seeds are shared."""
    judged = family.judged(design)
    if not judged.any():
        return True
    a, b = _sides(design, family)
    df = float(design.shared[a, b].min() - 1)
    paired = law(design, family, PAIRED).difference(df) * scatter.mean_deviation(df)
    pooled = law(design, family, POOLED).difference(float(design.df)) * scatter.mean_deviation(float(design.df))
    return bool(paired <= scatter.WIDER * pooled)
