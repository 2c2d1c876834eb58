"""The report's figures of curves over an axis."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from targetwise.inference.curves import Curve
from targetwise.report.effects import named
from targetwise.report.vega import Spec, axis, data, escaped, finite, inline, looks, plain, tooltip
from targetwise.report.words import number, records


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
