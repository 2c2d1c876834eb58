"""The figure of a study's verdicts: each measured ratio with its interval, on the ground that its claim predicted."""

import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from targetwise.inference.claims import Region
from targetwise.recipe import claims
from targetwise.report.words import records

INK, MUTED, PREDICTED = "#1b1b1b", "#777777", "#d9e8ee"
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "findings"}

#: Never by colour alone.
VERDICTS: Mapping[str, Mapping[str, Any]] = {
    "supported": {"color": "#1f6f8b", "marker": "o", "markerfacecolor": "#1f6f8b"},
    "contradicted": {"color": "#b3541e", "marker": "X", "markerfacecolor": "#b3541e"},
    "open": {"color": MUTED, "marker": "o", "markerfacecolor": "white"},
}

#: Ratios that may be marked on the axis; powers of ten alone where it is longer than two of them.
MARKS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 30, 100, 1e3, 1e4)
TENS = tuple(10.0**power for power in range(-4, 5))


def drawn(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts that a figure shows: those about a ratio of which there is an interval."""
    return frame[(frame["unit"] == "ratio") & (frame["statistic"] == "mean") & frame["low"].notna()]


def draw(frame: pd.DataFrame) -> str:
    """Return the figure of the rows of :func:`drawn` as SVG, the same text for the same rows."""
    low, high = _ends(frame)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.27 * len(frame) + 1.1), layout="constrained", facecolor="white")
        axes = figure.subplots()
        several = set(frame["claim"][frame["claim"].duplicated()])
        labels = []
        for place, row in enumerate(records(frame)):
            predicted = Region.of(claims.read(row.claim)["predicts"], logarithm=True)
            start, end = max(math.exp(predicted.low), low), min(math.exp(predicted.high), high)
            axes.barh(place, end - start, left=start, height=0.8, color=PREDICTED)
            look = VERDICTS[row.verdict]
            axes.plot([row.low, row.high], [place, place], color=look["color"], linewidth=2, solid_capstyle="butt")
            axes.plot(row.estimate, place, markersize=6.5, linestyle="none", **look)
            labels.append(f"{row.claim}, {row.setting}" if row.claim in several else row.claim)
        axes.axvline(1, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        _ratio_axis(axes, low, high)
        handles = [
            *(Line2D([], [], linewidth=2, label=verdict, **look) for verdict, look in VERDICTS.items()),
            Patch(color=PREDICTED, label="predicted"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def _ends(frame: pd.DataFrame) -> tuple[float, float]:
    """Return where the axis begins and ends: around all intervals and 1, with some room."""
    low, high = min(1, frame["low"].min()), max(1, frame["high"].max())
    room = max(1.3, (high / low) ** 0.06)
    return low / room, high * room


def _ratio_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    inside = [mark for mark in (TENS if high > 100 * low else MARKS) if low < mark < high]
    # Three to eight of them, 1 among them.
    every = -(-len(inside) // 8)
    first = inside.index(1) % every
    marks = inside[first::every]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("left / right, or the quantity itself; 95 % interval")
