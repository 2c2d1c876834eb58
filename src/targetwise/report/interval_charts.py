"""Estimates with their intervals, one row each: what comparisons and effects of factors are drawn with."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from targetwise.inference.factors import Factors
from targetwise.report.vega import INK, MUTED, PAPER, RULE, Spec, axis, data, finite, inline, tooltip
from targetwise.report.words import number, records

#: What stands between the two that an estimate compares, by its scale.
BETWEEN = {"ratio": "/", "difference": "−"}

#: Of a factor with more levels not every two are drawn, but each against the mean of all.
LEVELS = 5

#: So many stand above an interval on a telephone; the names of a longer comparison take two lines.
LETTERS = 46


def drawn(
    rows: Sequence[Mapping[str, Any]], scale: str, smallest: float | None, metric: str, alternative: str, name: str
) -> Markup:
    """Return a row for each estimate: what it compares, and below that dot and interval.

    Args:
        rows: ``comparison``, the estimate by the name of the scale, ``low``, ``high``, ``resolved``, a ``verdict``
            if there is one to be read beside the comparison, and whatever else a reader is told who points at it.
        scale: ``ratio`` or ``difference``.
        smallest: the smallest difference of interest, as a ratio minus one; shaded.
        metric: what is compared.
        alternative: text.
        name: of the figure.
    """
    is_ratio = scale == "ratio"
    none = 1.0 if is_ratio else 0.0
    edges = [row[key] for row in rows for key in (scale, "low", "high") if row[key] is not None]
    across = axis(f"{scale} of {metric}", [*edges, none], log=is_ratio)

    def label(weight: str, which: str, **halo: Any) -> Spec:
        return {
            "transform": [{"filter": which}, {"calculate": words, "as": "label"}],
            "mark": {
                "type": "text",
                "align": "left",
                "yOffset": above,
                "lineBreak": "\n",
                "fontWeight": weight,
                **halo,
            },
            "encoding": {"x": {"value": 0}, "text": {"field": "label"}},
        }

    is_long = any(len(f"{row['comparison']}: {row.get('verdict', '')}") > LETTERS for row in rows)
    height, above, below = (54, -18, 13) if is_long else (40, -11, 6)
    sign, line = BETWEEN[scale], "\\n" if is_long else " "
    words = f"replace(datum.comparison, ' {sign} ', ' {sign}{line}')"
    words += " + ': ' + datum.verdict" if "verdict" in rows[0] else ""
    halo = {"stroke": PAPER, "strokeWidth": 4}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "color": MUTED}, "encoding": {"x": {"datum": none, **across}, "y": None}},
        {
            "mark": {"type": "rule", "strokeWidth": 2, "yOffset": below},
            "encoding": {"x": {"field": "low", **across}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "size": 80, "fillOpacity": 1, "opacity": 1, "stroke": INK, "yOffset": below},
            "encoding": {
                "x": {"field": scale, **across},
                "fill": {"condition": {"test": "datum.resolved", "value": INK}, "value": PAPER},
                "tooltip": tooltip(*(key for key in rows[0] if key != "resolved")),
            },
        },
        label("bold", "datum.resolved", **halo),
        label("normal", "!datum.resolved", **halo),
        label("bold", "datum.resolved"),
        label("normal", "!datum.resolved"),
    ]
    if is_ratio and smallest is not None:
        band = {"from": 1 / (1 + smallest), "to": 1 + smallest}
        layers.insert(
            0,
            {
                "data": {"values": [band]},
                "mark": {"type": "rect", "color": RULE, "clip": True},
                "encoding": {"x": {"field": "from", **across}, "x2": {"field": "to"}, "y": None},
            },
        )
    specification = {
        "data": data(rows),
        "encoding": {"y": {"field": "comparison", "type": "nominal", "sort": None, "axis": None}},
        "height": height * len(rows),
        "layer": layers,
    }
    return inline(specification, alternative, name)


def effects(found: Factors, smallest: float | None, metric: str, where: str) -> Markup | None:
    """Return the effects of factors; None where none can be told.

    Args:
        found: with their estimates.
        smallest: the smallest difference of interest, likewise.
        metric: what is compared.
        where: at which values of the axes that are no factors; may be empty.
    """
    between = BETWEEN[found.scale]
    rows = []
    for factor, pairs in found.effects.groupby("factor", sort=False):
        levels = found.levels[found.levels["factor"] == factor]
        if len(levels) > LEVELS and levels["ratio"].notna().all():
            shown = _in_order(levels).assign(b="mean of all").rename(columns={"level": "a"})
        else:
            shown = pairs[pairs["ratio"].notna()]
        rows += [_effect(row, f"{factor}: {row.a} {between} {row.b}", found.scale) for row in records(shown)]
    if not rows:
        return None
    told = "; ".join(
        f"{row['comparison']} {number(row[found.scale])}{', resolved' if row['resolved'] else ''}" for row in rows
    )
    at = f" at {where}" if where else ""
    name = f"effects-{where}" if where else "effects"
    return drawn(rows, found.scale, smallest, metric, f"Effects of factors on {metric}{at}: {told}.", name)


def _effect(row: Any, comparison: str, scale: str) -> dict[str, Any]:
    none = 1.0 if scale == "ratio" else 0.0
    return {
        "comparison": comparison,
        scale: finite(row.ratio),
        "low": finite(row.low),
        "high": finite(row.high),
        "combinations": int(row.combinations),
        "resolved": bool(row.low > none or row.high < none),
    }


def _in_order(levels: pd.DataFrame) -> pd.DataFrame:
    """Return levels that are numbers by their size."""
    numbers = pd.to_numeric(levels["level"], errors="coerce")
    return levels.loc[numbers.sort_values().index] if numbers.notna().all() else levels
