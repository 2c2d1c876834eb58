"""The figure of a benchmark record: every ratio as a dot, with the range of its pairs."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

INK, MUTED, FASTER, SLOWER = "#1b1b1b", "#777777", "#1f6f8b", "#b3541e"
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "bench"}

#: Ratios that may be marked on the axis.
MARKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100)


@dataclass(frozen=True)
class Row:
    """One comparison: what it is called, and the ratio of its pairs."""

    label: str
    median: float
    low: float
    high: float


def rows(record: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """Return the comparisons of a record, in groups."""
    sections = record["sections"]
    switches = sections.get("switches", {})
    groups = {
        "training": sections.get("train", {}).get("comparisons", []),
        "sampling": sections.get("sample", {}).get("comparisons", []),
        "metric": sections.get("metric", {}).get("comparisons", []),
        "each switch, training": switches.get("train", []),
        "each switch, sampling": switches.get("sample", []),
    }
    found = {
        title: [_row(title, comparison) for comparison in comparisons if "skipped" not in comparison]
        for title, comparisons in groups.items()
    }
    return [(title, each) for title, each in found.items() if each]


def draw(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return the figure as SVG, the same text for the same record."""
    lines = sum(len(each) + 1.4 for _, each in groups)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 0.26 * lines + 0.9), layout="constrained", facecolor="white")
        axes = figure.subplots()
        place, ticks = 0.0, []
        for title, each in groups:
            axes.text(0, place, title, transform=axes.get_yaxis_transform(), weight="bold", va="center")
            place += 1
            for row in each:
                colour = FASTER if row.median >= 1 else SLOWER
                axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
                axes.plot(row.median, place, "o", color=colour, markersize=6)
                axes.text(1.01, place, f"{row.median:.2f}", transform=axes.get_yaxis_transform(), va="center")
                ticks.append((place, row.label))
                place += 1
            place += 0.4
        axes.axvline(1, color=MUTED, linewidth=1)
        axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
        axes.set_ylim(place - 0.6, -0.8)
        axes.set_xscale("log")
        marks = _spaced([ratio for _, each in groups for row in each for ratio in (row.low, row.high)])
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel("times as fast: median and range of the pairs")
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _spaced(ratios: Sequence[float]) -> list[float]:
    """Return the marks that the ratios reach, but none that would stand on its neighbour."""
    low, high = min(*ratios, 0.95), max(*ratios, 1.05)
    marks: list[float] = [1]
    for mark in sorted(MARKS, key=lambda mark: abs(math.log(mark))):
        apart = min(abs(math.log(mark / other)) for other in marks)
        if low <= mark <= high and apart > math.log(high / low) / 14:
            marks.append(mark)
    return sorted(marks)


def _row(title: str, comparison: Mapping[str, Any]) -> Row:
    ours, theirs = comparison["ours"]["name"], comparison["theirs"]["name"]
    if title.startswith("each switch"):
        label = ours
    elif title == "metric":
        label = f"{comparison['what']}: {ours.removeprefix('targetwise, ')} against {theirs}"
    else:
        label = f"{ours.removeprefix('targetwise, ')} against {theirs}"
    ratio = comparison["ratio"]
    return Row(label, ratio["median"], ratio["min"], ratio["max"])
