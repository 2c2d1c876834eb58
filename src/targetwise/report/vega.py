"""The grammar of the report's figures: Vega-Lite, drawn by the page's script.

Each figure is one view as wide as the page gives it. Colours are the page's CSS variables (``var(--ink)``), so that a
figure follows the page into dark mode; who saves one puts the light colours in their place.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import vl_convert
from markupsafe import Markup, escape

Spec = dict[str, Any]

INK, MUTED, RULE, PAPER, BAD = (f"var(--{name})" for name in ("ink", "muted", "rule", "paper", "bad"))
SERIES = [f"var(--series-{index})" for index in range(7)]

#: Colour is never alone: each series has its own dash pattern and shape too. Seven colours with five dash patterns
#: make 35 different lines.
DASHES = ([1, 0], [5, 2], [1, 1.6], [7, 2, 1, 2], [3, 1, 1, 1, 1, 1])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

#: Points of a curve that are drawn; a log may have thousands.
POINTS = 200

#: So wide is a figure without its axis on a telephone.
LEGEND = 280

#: What a figure shows, by its name in Vega; what is saved as CSV.
TABLE = "table"

CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": MUTED,
        "gridColor": RULE,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 240,
        "maxExtent": 400,  # or the title stands on long labels
        "tickColor": MUTED,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 240,
        "orient": "bottom",
        "symbolSize": 120,
        "symbolStrokeWidth": 2,
        "titleColor": INK,
    },
    "header": {"labelColor": INK, "labelFontSize": 12, "titleColor": INK},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": INK},
}

#: Of every figure.
COMMON: Spec = {"autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG}


def inline(specification: Spec, alternative: str, name: str) -> Markup:
    """Return a figure as an element that the page's script draws when a reader comes near it.

    Args:
        specification: Vega-Lite's, of one view or of layers, whose data are named ``table``.
        alternative: says the same in words, for those who cannot see it.
        name: of this figure alone; what is saved of it is called so.
    """
    whole = {**COMMON, "width": "container", **specification, "description": alternative}
    return Markup(  # noqa: S704 (the words are escaped, and the script has no "<")
        f'<div class="chart" role="img" aria-label="{escape(alternative)}" data-name="{escape(name)}">'
        f'<script type="application/json">{as_json(whole)}</script></div>'
    )


def as_json(content: Any) -> Markup:
    """Return plain values as the text of a script element, which a ``</`` would end whatever stands around it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 (no tag can begin in it)


def thinned(curve: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return at most about :data:`POINTS` points of a curve, evenly, with its last and all that have no number."""
    every = -(-len(curve) // POINTS)
    last = len(curve) - 1
    return [point for place, point in enumerate(curve) if place % every == 0 or place == last or point[1] is None]


def finite(value: float | None) -> float | None:
    """Return a number that JSON has; more than six figures are nowhere seen, and would make the page larger."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def data(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Return rows as the data of a figure."""
    return {"name": TABLE, "values": list(rows)}


def wrapped(after: str, most: int) -> str:
    """Return the ``labelExpr`` that breaks labels longer than ``most`` characters after one of those in ``after``."""
    return f"split(replace(datum.label, /(?=.{{{most + 1}}})(.{{1,{most - 1}}}[{after}])/g, '$1\\n'), '\\n')"


def tooltip(*fields: str) -> list[Spec]:
    """Return what a reader is told who points at a mark."""
    return [{"field": escaped(field), "title": field} for field in fields]


def plain(title: str) -> str:
    """Return a title as the name of a field: without what Vega-Lite reads as a way into an object, or as a quote."""
    return re.sub(r"[.\[\]'\"\\]", " ", title)


def escaped(field: str) -> str:
    """Return a field's name where Vega-Lite would take a dot for a way into an object."""
    return field.replace(".", "\\.").replace("[", "\\[").replace("]", "\\]")


def lines(rows: Sequence[Mapping[str, Any]], x: str, y: str, order: Sequence[str], along: Spec, up: Spec) -> Spec:
    """Return a line per parameterization; one that is chosen in the legend stands out."""
    names = list(dict.fromkeys(row["parameterization"] for row in rows))
    return {
        "data": data(rows),
        "height": 190,
        "params": [{"name": "chosen", "select": {"type": "point", "fields": ["parameterization"]}, "bind": "legend"}],
        "mark": {"type": "line", "strokeWidth": 1.6, "invalid": "break-paths-show-domains"},
        "encoding": {
            "x": {"field": x, **along},
            "y": {"field": y, **up},
            **looks("parameterization", order, names, dash=True, legend=True),
            "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.12},
            "tooltip": tooltip("parameterization", x, y),
        },
    }


def looks(
    field: str, order: Sequence[str], names: Sequence[str], *, legend: bool, dash: bool = False, shape: bool = False
) -> Spec:
    """Return colours, dashes and shapes of names; by its place in the whole order each keeps them in every figure."""
    places = [order.index(name) for name in names]
    shown = (
        {"title": None, "symbolOpacity": 1, "columns": max(1, int(LEGEND // (40 + 6.5 * max(map(len, names)))))}
        if legend
        else None
    )
    ranges = {
        "color": [SERIES[place % len(SERIES)] for place in places],
        **({"strokeDash": [DASHES[place % len(DASHES)] for place in places]} if dash else {}),
        **({"shape": [SHAPES[place % len(SHAPES)] for place in places]} if shape else {}),
    }
    return {
        channel: {
            "field": field,
            "type": "nominal",
            "scale": {"domain": list(names), "range": given},
            "legend": shown,
        }
        for channel, given in ranges.items()
    }


def axis(title: str, shown: Sequence[float] | pd.Series | np.ndarray, *, log: bool | None = None) -> Spec:
    """Return a quantitative axis with a margin; logarithmic where values span more than a factor of five."""
    low, high = float(min(shown)), float(max(shown))
    if log is None:
        log = low > 0 and high > 5 * low
    if log:
        margin = max((high / low) ** 0.06, 1.01)
        low, high = low / margin, high * margin
    else:
        margin = 0.06 * ((high - low) or abs(high) or 1.0)
        low, high = low - margin, high + margin
    marked = ticks(low, high, log=log)
    return {
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log" if log else "linear", "nice": False, "domain": [finite(low), finite(high)]},
        # Vega rounds the labels of an axis to what its own ticks would need; ours are others.
        "axis": {
            "values": marked,
            "tickCount": len(marked),  # or Vega leaves out every second of many
            "labelExpr": "datum.value && abs(datum.value) < 0.0001 ? format(datum.value, '~e') : "
            f"format(datum.value, '{'~s' if high >= 100_000 else ',~r'}')",
        },
    }


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Return about five round numbers between two; Vega marks only powers of ten on a short log axis."""
    if log and high > 4 * low:
        digits = (1, 2, 5) if high < 30 * low else (1, 3) if high < 1000 * low else (1,)
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        found = [each for power in powers for digit in digits if low <= (each := digit * 10.0**power) <= high]
        found = found if digits != (1,) else found[:: -(-len(found) // 6)]
    else:
        power = 10.0 ** np.floor(np.log10((high - low) / 4))
        step = next(each * power for each in (1, 2, 2.5, 5, 10) if (high - low) / (each * power) <= 5.7)
        found = [step * place for place in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
    return [float(f"{each:.10g}") for each in found if low <= each <= high]


@cache
def bundle() -> Markup:
    """Return the script that defines ``vegaEmbed``, with Vega and Vega-Lite in it."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;"))  # noqa: S704 (a script's own text)
