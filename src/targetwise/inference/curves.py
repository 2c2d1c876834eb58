"""The metric over a numeric field: means with a band at the measured values, and which of them may be the best.

Nothing is smoothed. Seeds are blocks: what a seed shifts all values of a curve by is in neither band nor comparison.
A parabola is fitted for the place of the optimum alone, and told only where the values do not speak against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference.contrasts import CONFIDENCE, RATIO, Fit, fit, sidak

#: From so large a ratio of the largest value to the smallest, the axis is logarithmic.
LOGARITHMIC_FROM = 4.0

#: So many values a parabola needs, one more than it has coefficients.
LEAST_FOR_OPTIMUM = 4

POINT_COLUMNS = [
    *("x", "seeds", "mean", "low", "high", "pointwise_low", "pointwise_high"),
    *("against_best", "against_best_low", "against_best_high", "may_be_best"),
]


@dataclass(frozen=True)
class Optimum:
    """Where a parabola through the values has its lowest point, and its 95 % interval (Fieller).

    ``x`` and the ends are NaN where that is not known; ``why`` says so, and otherwise how it was found.
    """

    x: float
    low: float
    high: float
    why: str


@dataclass(frozen=True)
class Curve:
    """One curve over an axis.

    Attributes:
        axis: the field.
        group: the other fields in which curves differ, with what they are here.
        points: a row for each measured ``x``, ascending: ``mean`` (geometric, where all values are above 0), the
            simultaneous band ``low`` to ``high`` and the ``pointwise`` one; ``against_best`` is the ratio to the
            best, with an interval that holds for all pairs; ``may_be_best``, that it is not resolved from the best.
        logarithmic: whether the axis is.
        scale: ``ratio``, or ``difference`` if a value is not above 0.
        deviation: of the residuals of y; NaN without degrees of freedom.
        df: its degrees of freedom.
        optimum: None with fewer than four points.
        lacking: values of the axis that the grid has and no finished cell.
    """

    axis: str
    group: dict[str, str]
    points: pd.DataFrame
    logarithmic: bool
    scale: str
    deviation: float
    df: int
    optimum: Optimum | None
    lacking: list[float]

    @property
    def best(self) -> float:
        """Return the measured value with the lowest mean; NaN if there is none."""
        lowest = self.points.sort_values("mean", kind="stable").dropna(subset="mean")["x"]
        return float(lowest.iloc[0]) if len(lowest) else np.nan

    @property
    def candidates(self) -> list[float]:
        """Return the measured values that are not resolved from the best; the true best is among them (95 %)."""
        return [float(x) for x in self.points.loc[self.points["may_be_best"], "x"]]


def curves(values: pd.DataFrame, axis: str, fields: Sequence[str]) -> list[Curve]:
    """Return a curve for each group of cells that differ in the axis and agree in everything else.

    Args:
        values: a row for each cell, with ``seed``, ``value`` (NaN unless finished) and a column for each field.
        axis: one of ``fields``, with numbers; where it has none, a cell is on no curve.
        fields: all in which cells differ. Groups with a single value on the axis make no curve.

    Raises:
        UserError: if there is no such column, or it holds something that is no number.
    """
    for name in (axis, *fields):
        if name not in values:
            raise UserError(f"'{name}' is no column of the table, so there is no curve over it")
    on_axis = values[values[axis].notna()]
    for x in on_axis[axis]:
        if isinstance(x, bool | np.bool_ | str):
            raise UserError(f"'{axis}' holds '{x}', which is no number, so there is no curve over it")
    others = [name for name in fields if name != axis]
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, key in enumerate(zip(*(on_axis[name].astype(str) for name in others), strict=True) if others else ()):
        groups.setdefault(key, []).append(place)
    rows = {key: on_axis.iloc[places] for key, places in (groups or {(): list(range(len(on_axis)))}).items()}
    found = {key: each for key, each in rows.items() if len(set(each[axis])) > 1}
    named = [place for place in range(len(others)) if len({key[place] for key in found}) > 1]
    return [_curve(each, axis, {others[place]: key[place] for place in named}) for key, each in found.items()]


def _curve(rows: pd.DataFrame, axis: str, group: dict[str, str]) -> Curve:
    declared = sorted({float(x) for x in rows[axis]})
    finished = rows[rows["value"].notna()]
    # Two names of one recipe have one value; which of them was meant does not matter.
    cells = finished.groupby([axis, "seed"])["value"].mean().reset_index().astype({axis: float})
    xs = sorted(set(cells[axis].tolist()))
    logarithmic = declared[0] > 0 and declared[-1] / declared[0] >= LOGARITHMIC_FROM
    lacking = [x for x in declared if x not in xs]
    if not xs:
        none = pd.DataFrame(columns=POINT_COLUMNS)
        return Curve(axis, group, none, logarithmic, RATIO, np.nan, 0, None, lacking)
    fitted = fit([str(x) for x in cells[axis]], cells["seed"].tolist(), cells["value"].tolist())
    order = [fitted.points.index(str(x)) for x in xs]
    points = pd.DataFrame(_points(xs, order, cells, axis, fitted), columns=POINT_COLUMNS)
    optimum = _optimum(cells, axis, fitted, logarithmic) if len(xs) >= LEAST_FOR_OPTIMUM else None
    return Curve(axis, group, points, logarithmic, fitted.scale, fitted.deviation, fitted.df, optimum, lacking)


def _points(xs: list[float], order: list[int], cells: pd.DataFrame, axis: str, fitted: Fit) -> list[dict[str, Any]]:
    count = len(xs)
    simultaneous = sidak(count, fitted.df)
    pointwise = float(stats.t.ppf(0.5 + CONFIDENCE / 2, fitted.df)) if fitted.df else np.nan
    among_pairs = fitted.pairwise_critical(count)
    seeds = cells.groupby(axis)["seed"].nunique()
    best = order[int(np.argmin(fitted.means[order]))]
    neutral = 1.0 if fitted.scale == RATIO else 0.0
    rows = []
    for x, place in zip(xs, order, strict=True):
        mean = fitted.mean(place)
        error = fitted.deviation * float(np.sqrt(fitted.covariance[place, place]))
        weights = np.zeros(count)
        weights[place] += 1
        weights[best] -= 1
        against = fitted.contrast(weights, among_pairs)
        rows.append(
            {
                "x": x,
                "seeds": int(seeds[x]),
                "mean": fitted.on_scale(mean),
                "low": fitted.on_scale(mean - simultaneous * error),
                "high": fitted.on_scale(mean + simultaneous * error),
                "pointwise_low": fitted.on_scale(mean - pointwise * error),
                "pointwise_high": fitted.on_scale(mean + pointwise * error),
                "against_best": against["ratio"],
                "against_best_low": against["low"],
                "against_best_high": against["high"],
                "may_be_best": not against["low"] > neutral,
            }
        )
    return rows


def _optimum(cells: pd.DataFrame, axis: str, fitted: Fit, logarithmic: bool) -> Optimum:
    """Fit y = seed + p·u + q·u², u the axis or its logarithm, and return where it is lowest: u = −p/2q."""
    place = "on a logarithmic axis" if logarithmic else "on a linear axis"
    if not fitted.df:
        return Optimum(np.nan, np.nan, np.nan, "There is no error estimate to test a parabola against.")
    x = cells[axis].to_numpy(dtype=float)
    measured = np.log(x) if logarithmic else x
    center, width = float(np.mean([measured.min(), measured.max()])), float(np.ptp(measured)) / 2
    u = (measured - center) / width  # from -1 to 1
    y = cells["value"].to_numpy(dtype=float)
    blocks = pd.get_dummies(cells["seed"]).to_numpy(dtype=float)
    found = sm.OLS(np.log(y) if fitted.scale == RATIO else y, np.column_stack([u, u**2, blocks])).fit()
    spare = len(fitted.points) - 3
    variance = fitted.deviation**2
    lack = max(float(found.ssr) - fitted.sum_of_squares, 0.0) / spare
    p_value = float(stats.f.sf(lack / variance, spare, fitted.df)) if variance else 0.0
    if p_value < 1 - CONFIDENCE:
        shown = "< 0.0001" if p_value < 0.0001 else f"= {p_value:.2g}"
        return Optimum(np.nan, np.nan, np.nan, f"A parabola {place} does not fit the values (p {shown}).")
    p, q = found.params[:2]
    of = np.asarray(found.normalized_cov_params)[:2, :2] * variance
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, fitted.df))
    if not q > t * np.sqrt(of[1, 1]):
        return Optimum(
            np.nan, np.nan, np.nan, "That the curve has a lowest point among the measured values is not resolved."
        )
    # Fieller: all r with |p + 2qr| at most t standard errors of it, the roots of a quadratic in r.
    a = 4 * (q**2 - t**2 * of[1, 1])
    b = 4 * (p * q - t**2 * of[0, 1])
    c = p**2 - t**2 * of[0, 0]
    root = float(np.sqrt(max(b**2 - 4 * a * c, 0.0)))
    ends = [-p / (2 * q), (-b - root) / (2 * a), (-b + root) / (2 * a)]
    if abs(ends[0]) > 1:
        return Optimum(np.nan, np.nan, np.nan, "The lowest point of a parabola lies outside the measured values.")
    lowest, low, high = (center + width * end for end in ends)
    if logarithmic:
        lowest, low, high = (float(np.exp(end)) for end in (lowest, low, high))
    outside = "" if max(map(abs, ends)) <= 1 else "; the interval reaches beyond the measured values"
    return Optimum(lowest, low, high, f"The lowest point of a parabola {place}{outside}.")
