"""The report's figures of an answer: comparisons, values and what bounds them."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from targetwise.report import interval_charts
from targetwise.report.vega import (
    INK,
    axis,
    data,
    finite,
    inline,
    looks,
    plain,
    tooltip,
    wrapped,
)
from targetwise.report.words import number, probability, records

#: At most so many comparisons are drawn, and so many variants in one plot of values.
INTERVALS, VARIANTS = 24, 40

#: The height of a variant's row in a plot of values; its dots are placed from the row's upper edge.
ROW = 34


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
    between = interval_charts.BETWEEN[scale]
    rows = [
        {
            "comparison": f"{pair.a} {between} {pair.b}",
            "verdict": pair.verdict,
            scale: finite(pair.ratio),
            "low": finite(pair.low),
            "high": finite(pair.high),
            "p": probability(pair.p_value),
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
            "place": ROW / 2 + 20 * (seeds.index(int(row.seed)) - (len(seeds) - 1) / 2) / max(len(seeds) - 1, 1),
        }
        for row in records(shown)
    ]
    across = axis(f"{metric}, lower is better", shown["value"])
    across["axis"] |= {"titleAnchor": "end"}  # where long names leave little room, it reaches below them
    specification = {
        "data": data(dots),
        "height": ROW * len(names),
        "mark": {"type": "point", "size": 60, "filled": True, "opacity": 1},
        "encoding": {
            "x": {"field": field, **across},
            "y": {
                "field": "parameterization",
                "type": "nominal",
                "scale": {"domain": names, "padding": 0},
                "axis": {"title": None, "ticks": False, "domain": False, "labelExpr": wrapped("_", 22)},
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
