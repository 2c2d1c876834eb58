"""Means of points over shared seeds, and contrasts of them with simultaneous intervals.

A point is what is measured with every seed: a variant, or a value on an axis. The model is y = point + seed + e with
independent e of one variance, on y = ln(value); where a value is not above 0 it is y = value. Points may lack seeds:
least squares on what is there.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import ndtr
from statsmodels.tools.sm_exceptions import SingularMatrixWarning

from targetwise.inference import quantiles
from targetwise.inference.blocks import on_scale
from targetwise.inference.quantiles import CONFIDENCE

RATIO = "ratio"

#: What a cell is known by, where settings differ.
KEYS = ["setting", "parameterization", "seed"]


@dataclass(frozen=True)
class Fit:
    """Least squares of the values of K points.

    Attributes:
        points: their names, in the order of what follows.
        means: (K,) of y, at the average of the seeds' effects; see :meth:`mean` for whether they can be estimated.
        covariance: (K, K) of ``means`` in units of the residual variance.
        estimable: (K, K) maps a contrast that can be estimated onto itself.
        deviation: of the residuals; NaN without degrees of freedom.
        df: degrees of freedom of ``deviation``.
        sum_of_squares: of the residuals.
        balanced: whether every point has every seed.
        scale: ``ratio`` where y is a logarithm, else ``difference``.
    """

    points: list[str]
    means: np.ndarray
    covariance: np.ndarray
    estimable: np.ndarray
    deviation: float
    df: int
    sum_of_squares: float
    balanced: bool
    scale: str

    def mean(self, place: int) -> float:
        """Return the mean of a point; NaN if the seeds do not link all points, so that there is no common average."""
        own = np.eye(len(self.points))[place]
        return float(self.means[place]) if np.allclose(own @ self.estimable, own, atol=1e-8) else np.nan

    def contrast(self, weights: np.ndarray, critical: float) -> dict[str, float]:
        """Return a contrast of the means as a ratio (or a difference) with its interval.

        Args:
            weights: (K,), with the sum 0.
            critical: half the interval's width in standard errors.

        Returns:
            ``ratio``, ``low`` and ``high``; NaN if the values cannot tell, the last two without degrees of freedom.
        """
        if not np.allclose(weights @ self.estimable, weights, atol=1e-8):
            return dict.fromkeys(("ratio", "low", "high"), np.nan)
        estimate = float(weights @ self.means)
        half = critical * self.deviation * float(np.sqrt(max(weights @ self.covariance @ weights, 0.0)))
        found = {"ratio": estimate, "low": estimate - half, "high": estimate + half}
        return {name: self.on_scale(value) for name, value in found.items()}

    def on_scale(self, value: float) -> float:
        """Return a value of y as the reader sees it: e^y where y is a logarithm."""
        return float(np.exp(value)) if self.scale == RATIO else value

    def pairwise_critical(self, count: int) -> float:
        """Return the half-width, in standard errors, of simultaneous intervals for all pairs of ``count`` means.

        Tukey's where each point has every seed; else Šidák's, which holds whatever the correlations.
        """
        return tukey(count, self.df) if self.balanced else sidak(count * (count - 1) // 2, self.df)


def cell_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the finished cells of a table, one row each, with the mean over their draws as ``value``.

    A cell counts only with all its draws. Other columns are those of its first draw.

    Args:
        frame: of :func:`targetwise.report.table.table`.
    """
    finished = (frame["status"] == "finished").groupby([frame[key] for key in KEYS], sort=False)
    whole = frame[finished.transform("all").astype(bool)]
    if whole.empty:
        return frame.iloc[:0]
    values = whole.groupby(KEYS, sort=False)["value"].mean().reset_index()
    others = whole.drop_duplicates(KEYS).drop(columns="value")
    return others.merge(values, on=KEYS, sort=False)


def fit(points: Sequence[str], seeds: Sequence[int], values: Sequence[float]) -> Fit:
    """Fit values of points and seeds, one for each combination that there is.

    Args:
        points: (N,) the name of each value's point.
        seeds: (N,) its seed.
        values: (N,) finite numbers.
    """
    y, scale = on_scale(np.asarray(values, dtype=float))
    names = list(dict.fromkeys(points))
    blocks = list(dict.fromkeys(seeds))
    design = np.zeros((len(y), len(names) + len(blocks) - 1))
    for row, (point, seed) in enumerate(zip(points, seeds, strict=True)):
        design[row, names.index(point)] = 1.0
        place = blocks.index(seed)
        # Effects of seeds sum to 0, so that a mean is at their average.
        if place < len(blocks) - 1:
            design[row, len(names) + place] = 1.0
        else:
            design[row, len(names) :] = -1.0
    found = estimated(sm.OLS(y, design))
    count, df = len(names), round(float(found.df_resid))
    projector = np.linalg.pinv(design) @ design
    whole = np.allclose(np.eye(len(projector))[:count], projector[:count], atol=1e-8)
    return Fit(
        points=names,
        means=np.asarray(found.params[:count]),
        covariance=np.asarray(found.normalized_cov_params)[:count, :count],
        estimable=np.eye(count) if whole else _estimable(projector, count),
        deviation=float(np.sqrt(found.ssr / df)) if df else np.nan,
        df=df,
        sum_of_squares=float(found.ssr),
        balanced=len(y) == count * len(blocks),
        scale=scale,
    )


def estimated(model: Any) -> Any:
    """Return the results of a statsmodels model of least squares whose design may lack rank.

    What cannot be estimated is found by the caller; sums of squares and degrees of freedom are right all the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularMatrixWarning)
        return model.fit()


def _estimable(projector: np.ndarray, count: int) -> np.ndarray:
    """Return the projector of weights of the means onto those that can be estimated.

    Weights w, extended by zeros for the seeds, can be estimated if the design's projector P keeps them: w(I − P) = 0.
    """
    lost = np.eye(len(projector))[:count] - projector[:count]
    _, sizes, directions = np.linalg.svd(lost.T, full_matrices=True)
    kept = directions[int((sizes > 1e-8).sum()) :]
    return np.asarray(kept.T @ kept)


@dataclass(frozen=True)
class Independent:
    """A law of so many independent comparisons: the largest |Z_i| (the studentized maximum modulus).

    By Šidák's inequality (1967) its quantiles are never too small where comparisons are correlated.
    """

    comparisons: int

    def normal(self, x: np.ndarray) -> np.ndarray:
        """P = (2Φ(x) − 1)^k."""
        return np.asarray((2 * ndtr(x) - 1) ** self.comparisons)


def tukey(count: int, df: int) -> float:
    """Return the critical value for all pairs of ``count`` means, in standard errors; NaN where there is none."""
    return quantiles.critical(quantiles.Range(count), df, CONFIDENCE) if df > 0 and count > 1 else np.nan


def sidak(count: int, df: int) -> float:
    """Return the critical value for ``count`` comparisons with any correlations; NaN where there is none."""
    return quantiles.critical(Independent(count), df, CONFIDENCE) if df > 0 and count > 0 else np.nan
