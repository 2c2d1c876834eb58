"""Plots as inline SVG: the one module that knows how matplotlib draws.

Every plot is small and laid out by the page, so that its text keeps its size on a telephone and on a wide screen. Its
colours are the page's CSS variables, so that it follows the page into dark mode.
"""

import io
import re
from collections.abc import Collection, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

#: Drawn in these, and then replaced by the page's variables.
INK, MUTED, RULE, PAPER, BAD = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = tuple(f"#0601{index:02x}" for index in range(7))
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", BAD: "bad"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}

#: Colour is never alone: each series has its own dash pattern and marker too. Seven colours with
#: five dash patterns make 35 different lines.
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.6)), (0, (7, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

WIDTH = 360

#: Lines that are named within a plot; more would hide it.
WITHIN = 6

STYLE = {
    # DejaVu Sans comes with matplotlib, so the layout is the same everywhere; it is also wider than what the page
    # then sets the text in, so nothing that fits here overlaps there.
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.labelsize": 12,
    "lines.linewidth": 1.6,
}


def blank(*heights: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with one plot below the other, of ``heights`` in pixels."""
    figure = Figure(figsize=(WIDTH / 72, sum(heights) / 72), layout="constrained")
    return figure, list(figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])


def line(place: int) -> dict[str, Any]:
    """Return the colour and the dashes of the parameterization at ``place`` in the grid."""
    return {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place % len(DASHES)]}


def below(names: Collection[str]) -> int:
    """Return the pixels that :func:`name_lines` needs below a plot: none for a few lines, which it names within."""
    return 0 if len(names) <= WITHIN else 18 * -(-len(names) // _columns(names)) + 8


def name_lines(axes: Axes, names: Collection[str]) -> None:
    """Name the lines of a plot: a few within it, where there is room, more of them below it, in columns."""
    if len(names) <= WITHIN:
        axes.legend(frameon=False, fontsize=11, loc="best", handlelength=2.8)
    elif isinstance(axes.figure, Figure):
        axes.figure.legend(
            loc="outside lower left", ncols=_columns(names), frameon=False, fontsize=11, handlelength=2.8, borderpad=0
        )


def _columns(names: Collection[str]) -> int:
    return max(1, int(WIDTH // (56 + 7 * max(map(len, names)))))


def linear_ticks(axis: Any, integer: bool = False) -> None:
    """Mark about five round numbers on a linear axis."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=integer))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))


def positive(values: Sequence[float | None]) -> np.ndarray:
    """Return the values that a logarithmic axis has a place for; the others, and what is None, are gaps."""
    shown = np.array(values, dtype=float)
    return np.where(shown > 0, shown, np.nan)


def step_axis(axes: Axes) -> None:
    """Make the x axis one of training steps."""
    linear_ticks(axes.xaxis, integer=True)
    axes.set_xlabel("step")


def number_axis(axes: Axes, which: str, shown: np.ndarray) -> None:
    """Use a log axis where the values span more than a factor of five."""
    if len(shown) and shown.min() > 0 and shown.max() > 5 * shown.min():
        getattr(axes, f"set_{which}scale")("log")
        log_ticks(axes, which, float(shown.min()), float(shown.max()))
    else:
        linear_ticks(getattr(axes, f"{which}axis"))


def log_ticks(axes: Axes, which: str, low: float, high: float) -> None:
    """Mark a log axis that runs from ``low`` to ``high``: plain numbers up to three decades, then powers of ten."""
    axis = getattr(axes, f"{which}axis")
    if high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    else:
        first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
        every = -(-(last - first) // 6)
        axis.set_major_locator(FixedLocator([10.0**power for power in range(first, last + 1, every)]))
        axis.set_major_formatter(FuncFormatter(_power_of_ten))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _power_of_ten(value: float, _: int) -> str:
    power = round(np.log10(value))
    return "10" + str(power).translate(SUPERSCRIPTS)


def inline(figure: Figure, alternative: str, name: str) -> Markup:
    """Return a figure as an SVG element that a page can hold beside others.

    Args:
        figure: to draw.
        alternative: says the same in words, for those who cannot see it.
        name: of this figure alone; the ids in it come from it.
    """
    buffer = io.StringIO()
    # The salt makes ids the same in every run, and different from those of the page's other figures.
    with mpl.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    width, height = (72 * length for length in figure.get_size_inches())
    opening = (
        f'<svg role="img" aria-label="{escape(alternative)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    page_ready = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    return Markup(page_ready)  # noqa: S704 (matplotlib escaped the text in it, and we the label)
