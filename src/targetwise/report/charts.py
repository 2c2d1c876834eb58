"""The report's figures of an answer: comparisons, values, what bounds them, and curves over an axis."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from targetwise.inference.curves import Curve
from targetwise.report import interval_charts
from targetwise.report.effects import named
from targetwise.report.vega import (
    INK,
    Spec,
    axis,
    data,
    escaped,
    finite,
    inline,
    looks,
    plain,
    tooltip,
)
from targetwise.report.words import number, records

#: At most so many comparisons are drawn, and so many variants in one plot of values.
INTERVALS, VARIANTS = 24, 40


def worth_drawing(pairs: pd.DataFrame, summary: pd.DataFrame, most: int = INTERVALS) -> pd.DataFrame:
    """Return the comparisons to show: all of a few, otherwise those with the lowest mean, and of these the first.

    Args:
        pairs: rows of :attr:`targetwise.inference.compare.Comparison.pairs`, or those of each pair by itself.
        summary: rows of :func:`targetwise.report.statistics.summary` of the same setting.
        most: how many are a few.
    """
    if len(pairs) <= most:
        return pairs
    lowest = summary.sort_values("mean")["parameterization"].iloc[0]
    return pairs[(pairs["a"] == lowest) | (pairs["b"] == lowest)].head(most)


def intervals(pairs: pd.DataFrame, scale: str, smallest: float | None, metric: str, setting: str) -> Markup:
    """Return comparisons with their simultaneous intervals, one row each.

    Args:
        pairs: rows of :attr:`targetwise.inference.compare.Comparison.pairs`, each with a ratio.
        scale: ``ratio``, or ``difference`` where a value is not positive.
        smallest: the smallest difference of interest, as a ratio minus one; shaded.
        metric: what the rows measure.
        setting: for the alternative text.
    """
    between = "/" if scale == "ratio" else "−"
    rows = [
        {
            "comparison": f"{pair.a} {between} {pair.b}",
            "verdict": pair.verdict,
            scale: finite(pair.ratio),
            "low": finite(pair.low),
            "high": finite(pair.high),
            "p": finite(pair.p_value),
            "seeds": int(pair.seeds),
            "resolved": bool(pair.resolved),
        }
        for pair in records(pairs)
    ]
    told = "; ".join(f"{each.a} {between} {each.b} {number(each.ratio)}, {each.verdict}" for each in records(pairs))
    alternative = f"Comparisons of {metric} at {setting}: {told}."
    return interval_charts.drawn(rows, scale, smallest, metric, alternative, f"intervals-{setting}")


def values(rows: pd.DataFrame, order: Sequence[str], metric: str, setting: str) -> Markup:
    """Return every value in one setting as a dot; of many variants those with the lowest means.

    Args:
        rows: finished rows of :func:`targetwise.report.table.table` of one setting.
        order: all parameterizations of the grid; a name keeps its place, colour and shape.
        metric: what the rows measure.
        setting: for the alternative text.
    """
    means = rows.groupby("parameterization")["value"].mean().nsmallest(VARIANTS)
    names = [name for name in order if name in means]
    shown = rows[rows["parameterization"].isin(names)]
    field, seeds = plain(metric), sorted({int(seed) for seed in shown["seed"]})
    dots = [
        {
            "parameterization": row.parameterization,
            "seed": int(row.seed),
            "draw": int(row.draw),
            field: finite(row.value),
            "error": finite(row.error),
            "place": 20 * (seeds.index(int(row.seed)) - (len(seeds) - 1) / 2) / max(len(seeds) - 1, 1),
        }
        for row in records(shown)
    ]
    specification = {
        "data": data(dots),
        "height": 34 * len(names),
        "mark": {"type": "point", "size": 60, "filled": True, "opacity": 1},
        "encoding": {
            "x": {"field": field, **axis(f"{metric}, lower is better", shown["value"])},
            "y": {
                "field": "parameterization",
                "type": "nominal",
                "scale": {"domain": names},
                "axis": {"title": None, "ticks": False, "domain": False},
            },
            "yOffset": {"field": "place", "type": "quantitative", "scale": None},
            **looks("parameterization", order, names, shape=True, legend=False),
            "tooltip": tooltip("parameterization", "seed", "draw", field, "error"),
        },
    }
    told = "; ".join(
        f"{name} {', '.join(number(value) for value in rows[rows['parameterization'] == name]['value'])}"
        for name in names
    )
    return inline(specification, f"{metric} of every cell at scale {setting}: {told}.", f"values-{setting}")


def limits(
    rows: pd.DataFrame,
    order: Sequence[str],
    metric: str,
    setting: str,
    floor: float | None,
    exact: float | None,
    ceilings: Mapping[str, float],
) -> Markup | None:
    """Return the values of one setting between what bounds them; None where no bound was measured.

    Args:
        rows: as those of :func:`values`, and so the next three.
        order: all parameterizations of the grid.
        metric: what the rows measure.
        setting: for the alternative text.
        floor: the value of held-out real images, if it was measured.
        exact: that of the exact denoiser's samples, likewise.
        ceilings: the value of an untrained network by parameterization, those that were measured.
    """
    field = plain(metric)
    known = {"real": floor, "exact": exact}
    marks = [(f"{name} {number(value)}", value) for name, value in known.items() if value]  # some are 0 of copies
    span = sorted({min(ceilings.values()), max(ceilings.values())}) if ceilings else []
    if span:
        marks.append((f"untrained {' to '.join(dict.fromkeys(map(number, span)))}", span[-1]))
    if not marks:
        return None
    marks.sort(key=lambda mark: mark[1])
    levels = [*(value for _, value in marks), *span]
    shown = [*rows["value"], *levels]
    across = {"field": field, **axis(f"{metric} beside its bounds", shown, log=min(shown) > 0)}
    # The highest is named to its left and the others to their right, each on a line of its own, so that none meet.
    lines = [
        {
            "data": {"values": [{field: finite(value), "what": what}]},
            "mark": {"type": "text", "align": "left" if place else "right", "yOffset": -14 - 15 * place},
            "encoding": {"x": across, "text": {"field": "what"}},
        }
        for place, (what, value) in enumerate(reversed(marks))
    ]
    dots = [{"parameterization": row.parameterization, field: finite(row.value)} for row in records(rows)]
    specification = {
        "data": data(dots),
        "height": 30 + 32 * len(marks),
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0.8},
                "encoding": {
                    "x": across,
                    **looks(
                        "parameterization", order, list(rows["parameterization"].unique()), shape=True, legend=False
                    ),
                    "tooltip": tooltip("parameterization", field),
                },
            },
            {
                "data": {"values": [{field: finite(level)} for level in levels]},
                "mark": {"type": "tick", "thickness": 2, "size": 16, "color": INK},
                "encoding": {"x": across},
            },
            *lines,
        ],
    }
    told = ", ".join(what for what, _ in marks)
    return inline(specification, f"{metric} at {setting} between {told}.", f"limits-{setting}")


def over_axis(curves: Sequence[Curve], metric: str) -> Markup:
    """Return curves over one axis: means, the simultaneous band of each, and open marks where the best may be.

    Args:
        curves: with the same axis.
        metric: what the rows measure.
    """
    along, field = curves[0].axis, plain(metric)
    groups = [named(curve.group) or along for curve in curves]
    rows = [
        {
            "curve": group,
            along: float(row.x),
            field: finite(row.mean),
            "low": finite(row.low),
            "high": finite(row.high),
            "may be best": bool(row.may_be_best),
        }
        for group, curve in zip(groups, curves, strict=True)
        for row in records(curve.points)
    ]
    measured = sorted({float(x) for curve in curves for x in curve.points["x"]})
    x = axis(along, measured, log=any(curve.logarithmic for curve in curves))
    x["axis"] = {"values": measured, "labelOverlap": True}
    edges = np.concatenate([curve.points[["mean", "low", "high"]].to_numpy(float).ravel() for curve in curves])
    y = axis(metric, edges[np.isfinite(edges)])
    mean = {"field": field, **y}
    looked = looks("curve", groups, groups, dash=True, shape=True, legend=any(curve.group for curve in curves))
    told_apart = {channel: looked.pop(channel) for channel in ("strokeDash", "shape")}
    marks: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.18, "point": False, "line": False},
            "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "point": False},
            "encoding": {"y": mean, "strokeDash": told_apart["strokeDash"]},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1},
            "encoding": {
                "y": mean,
                "shape": told_apart["shape"],
                "tooltip": tooltip("curve", along, field, "low", "high", "may be best"),
            },
        },
        {
            "transform": [{"filter": "datum['may be best']"}],
            "mark": {"type": "point", "size": 180, "shape": "circle"},
            "encoding": {"y": mean},
        },
    ]
    specification = {
        "data": data(rows),
        "height": 220,
        "encoding": {
            "x": {"field": escaped(along), **x},
            **looked,
        },
        "layer": marks,
    }
    told = "; ".join(", ".join(f"{row.x:g}: {number(row.mean)}" for row in records(curve.points)) for curve in curves)
    return inline(specification, f"{metric} over {along}: {told}.", f"curve-{along}")
