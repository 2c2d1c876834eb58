"""What a design can resolve, and the seeds that another answer needs, for one comparison at its family's quantile.

All is counted in standard errors of a difference, √(2/S) residual deviations for S seeds of a complete design. The
power of |t| > c at a true difference d is the noncentral t distribution's, E_s[Φ(d − c·s) + Φ(−d − c·s)]; that of two
one-sided tests within ±m where nothing differs is E_s[2Φ(m − c·s) − 1]₊, with s² ~ χ²(df)/df.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize
from scipy.special import ndtr

from targetwise.inference.quantiles import Joint, Separate, all_pairs, scale_nodes, with_control_complete

Array = np.ndarray

POWER = 0.8
MOST_SEEDS = 1000

#: Numbers of seeds for which a curve is computed; between them it is interpolated over 1/seeds, where it is smooth.
KNOTS = (*range(2, 17), 20, 26, 36, 52, 80, 140, 300, MOST_SEEDS)


def power(difference: float, c: float, df: float) -> float:
    """Return P(|t| > c) where the true difference is so many standard errors."""
    s, weights = scale_nodes(df)
    return float((ndtr(difference - c * s) + ndtr(-difference - c * s)) @ weights)


def equivalence_power(margin: float, c: float, df: float) -> float:
    """Return P(|difference| + c·error < margin), the margin in standard errors, where the true difference is 0."""
    s, weights = scale_nodes(df)
    return float(np.maximum(2 * ndtr(margin - c * s) - 1, 0) @ weights)


@functools.lru_cache(maxsize=4096)
def resolvable(c: float, df: float) -> float:
    """Return the true difference, in standard errors, that is resolved with 80 % power."""
    return _root(lambda difference: power(difference, c, df) - POWER)


@functools.lru_cache(maxsize=4096)
def showable(c: float, df: float) -> float:
    """Return the margin, in standard errors, within which equal variants are shown to be with 80 % power."""
    return _root(lambda margin: equivalence_power(margin, c, df) - POWER)


def seeds_to_resolve(ratio: float, deviation: float, variants: int, baseline: bool) -> int | None:
    """Return how many seeds resolve a true ratio of two variants with 80 % power, by the pooled method.

    Args:
        ratio: of the two means, above 0; 1.05 and 1/1.05 need the same.
        deviation: the residual deviation of ln(value), above 0.
        variants: how many are compared, at least 2, all with every seed.
        baseline: compared with the baseline alone, or all pairs.

    Returns:
        At least 2; None where over 1,000 are needed.
    """
    needed = needed_to_resolve(complete_family(variants, baseline), variants - 1)
    return seeds_for(abs(math.log(ratio)) / deviation, needed)


def seeds_to_show_equivalence(ratio: float, deviation: float, variants: int, baseline: bool) -> int | None:
    """Return how many seeds show two equal variants equivalent within a ratio with 80 % power."""
    needed = needed_for_equivalence(complete_family(variants, baseline), variants - 1)
    return seeds_for(abs(math.log(ratio)) / deviation, needed)


def seeds_for(difference: float, needed: Array) -> int | None:
    """Return the first number of seeds at which ``needed``, residual deviations for 2, 3, … seeds, is not larger."""
    enough = np.flatnonzero(needed <= difference)
    return int(enough[0]) + 2 if len(enough) else None


@functools.lru_cache(maxsize=256)
def needed_to_resolve(family: Joint | Separate, df_per_seed: int, df_before: float = 0.0) -> Array:
    """Return the difference in residual deviations that 2, 3, … seeds resolve with 80 % power.

    Args:
        family: of comparisons.
        df_per_seed: what each seed after the first adds to the degrees of freedom: variants − 1 where pooled, else 1.
        df_before: what is there without seeds: d_0 where moderated.
    """
    return _over_seeds(lambda df: resolvable(float(family.difference(df)), df), df_per_seed, df_before)


@functools.lru_cache(maxsize=256)
def needed_for_equivalence(family: Joint | Separate, df_per_seed: int, df_before: float = 0.0) -> Array:
    """Return the margin in residual deviations within which 2, 3, … seeds show equality with 80 % power."""
    return _over_seeds(lambda df: showable(float(family.equivalence(df)), df), df_per_seed, df_before)


def complete_family(variants: int, baseline: bool) -> Joint:
    """Return the family of so many variants, all with the same seeds: with a baseline among them, or all pairs."""
    return with_control_complete(variants - 1) if baseline else all_pairs(variants)


def _over_seeds(in_errors: Callable[[float], float], df_per_seed: int, df_before: float) -> Array:
    seeds = np.arange(2, MOST_SEEDS + 1)
    knots = np.array([in_errors(df_before + df_per_seed * (count - 1)) for count in KNOTS])
    over = np.interp(-1 / (seeds - 1), -1 / (np.array(KNOTS) - 1), knots)
    return np.asarray(over * np.sqrt(2 / seeds))


def _root(of: Callable[[float], float]) -> float:
    high = 8.0
    while of(high) < 0:
        high *= 2
    return float(optimize.brentq(of, 0.0, high, xtol=1e-7))
