"""The metric over a numeric field, as a figure."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import NullLocator

from targetwise.inference.curves import Curve
from targetwise.report.effects import named
from targetwise.report.svg import MARKERS, STYLE, blank, inline, line, number_axis
from targetwise.report.words import number, records


@mpl.rc_context(STYLE)
def over_axis(curves: Sequence[Curve], metric: str) -> Markup:
    """Return curves over one axis: means, the simultaneous band of each, and open marks where the best may be.

    Args:
        curves: with the same axis.
        metric: what the rows measure.
    """
    are_told_apart = any(curve.group for curve in curves)
    figure, (axes,) = blank(240 + 18 * len(curves) * are_told_apart)
    measured = sorted({float(x) for curve in curves for x in curve.points["x"]})
    shown: list[float] = []
    for place, curve in enumerate(curves):
        points = curve.points.astype({"x": float, "mean": float, "low": float, "high": float})
        look = line(place)
        marker, label = MARKERS[place % len(MARKERS)], named(curve.group) or None
        axes.fill_between(points["x"], points["low"], points["high"], color=look["color"], alpha=0.18, linewidth=0)
        axes.plot(points["x"], points["mean"], label=label, marker=marker, markersize=5, **look)
        best = points[points["may_be_best"].astype(bool)]
        axes.plot(best["x"], best["mean"], "o", markersize=11, markerfacecolor="none", color=look["color"])
        edges = points[["mean", "low", "high"]].to_numpy()
        shown.extend(edges[np.isfinite(edges)])
    if any(curve.logarithmic for curve in curves):
        axes.set_xscale("log")
    number_axis(axes, "y", np.array(shown))
    axes.set_xticks(measured, [f"{x:g}" for x in measured])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(curves[0].axis)
    axes.set_ylabel(metric)
    if are_told_apart:
        figure.legend(frameon=False, fontsize=10, loc="outside lower left", handlelength=2.8)
    told = "; ".join(", ".join(f"{row.x:g}: {number(row.mean)}" for row in records(curve.points)) for curve in curves)
    return inline(figure, f"{metric} over {curves[0].axis}: {told}.", f"curve-{curves[0].axis}")
