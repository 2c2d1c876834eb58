"""The report's figures: what is drawn of differences, values, training and the check, and sheets of samples."""

import base64
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from targetwise.report.pictures import is_picture, png, projection, tile
from targetwise.report.svg import (
    BAD,
    DASHES,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    RULE,
    SERIES,
    STYLE,
    below,
    blank,
    inline,
    line,
    linear_ticks,
    log_ticks,
    name_lines,
    number_axis,
    positive,
    step_axis,
)
from targetwise.report.words import number, records

#: A sample sheet's images are enlarged to about this many pixels.
SHEET_COLUMNS, SHEET_ROWS, IMAGE_SIDE, PROJECTION_SIDE = 8, 4, 64, 256

#: At most so many comparisons are drawn.
INTERVALS = 24

#: Characters of a comparison's label that fit over a plot in full size.
LABEL = 40


def worth_drawing(pairs: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons to draw: all of a few, otherwise those with the lowest mean, and of these the first.

    Args:
        pairs: rows of :attr:`targetwise.inference.compare.Comparison.pairs`.
        summary: rows of :func:`targetwise.report.statistics.summary` of the same setting.
    """
    if len(pairs) <= INTERVALS:
        return pairs
    lowest = summary.sort_values("mean")["parameterization"].iloc[0]
    return pairs[(pairs["a"] == lowest) | (pairs["b"] == lowest)].head(INTERVALS)


@mpl.rc_context(STYLE)
def intervals(pairs: pd.DataFrame, scale: str, smallest: float | None, metric: str, setting: str) -> Markup:
    """Return comparisons with their simultaneous intervals, one row each.

    Args:
        pairs: rows of :attr:`targetwise.inference.compare.Comparison.pairs`, each with a ratio.
        scale: ``ratio``, or ``difference`` where a value is not positive.
        smallest: the smallest difference of interest, as a ratio minus one; shaded.
        metric: what the rows measure.
        setting: for the alternative text.
    """
    is_ratio = scale == "ratio"
    none, between = (1.0, "/") if is_ratio else (0.0, "−")
    figure, (axes,) = blank(40 * len(pairs) + 62)
    if is_ratio and smallest is not None:
        axes.axvspan(1 / (1 + smallest), 1 + smallest, color=RULE, zorder=0.5, linewidth=0)
    for row, pair in enumerate(records(pairs)):
        label = f"{pair.a} {between} {pair.b}: {pair.verdict}"
        axes.annotate(
            label,
            (0, row - 0.3),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=min(12, 12 * LABEL / len(label)),
            weight="bold" if pair.resolved else "normal",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
        ).set_in_layout(False)
        if np.isfinite(pair.low):
            axes.plot([pair.low, pair.high], [row + 0.12] * 2, color=INK, linewidth=2, solid_capstyle="butt")
        axes.plot(
            pair.ratio, row + 0.12, "o", markersize=8, color=INK, markerfacecolor=INK if pair.resolved else PAPER
        )
    axes.axvline(none, color=MUTED, linewidth=1.2, zorder=0.9)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    edges = np.append(pairs[["low", "high", "ratio"]].to_numpy(dtype=float).ravel(), none)
    low, high = float(np.nanmin(edges)), float(np.nanmax(edges))
    if is_ratio:
        margin = max((high / low) ** 0.06, 1.01)
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
        if high > 2.5 * low:
            log_ticks(axes, "x", low, high)
        else:
            linear_ticks(axes.xaxis)
            axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.06 * ((high - low) or 1.0)
        axes.set_xlim(low - margin, high + margin)
        linear_ticks(axes.xaxis)
    axes.set_xlabel(f"{'ratio' if is_ratio else 'difference'} of {metric}")
    told = "; ".join(f"{each.a} {between} {each.b} {number(each.ratio)}, {each.verdict}" for each in records(pairs))
    return inline(figure, f"Comparisons of {metric} at {setting}: {told}.", f"intervals-{setting}")


@mpl.rc_context(STYLE)
def values(
    rows: pd.DataFrame,
    order: Sequence[str],
    metric: str,
    scale: str,
    floor: float | None,
    exact: float | None,
    ceilings: Mapping[str, float],
) -> Markup:
    """Return every value at one scale as a dot, and below it the same dots between floor and ceiling.

    Args:
        rows: finished rows of :func:`targetwise.report.table.table` of one scale.
        order: all parameterizations of the grid; a name keeps its place, colour and marker.
        metric: what the rows measure.
        scale: for the alternative text.
        floor: the value of held-out real images, if it was measured.
        exact: that of the exact denoiser's samples, likewise.
        ceilings: the value of an untrained network by parameterization, those that were measured.
    """
    bounds = [value for value in [floor, exact, *ceilings.values()] if value is not None and value > 0]
    height = 34 * len(order) + 62
    figure, parts = blank(height, 104 if exact is None else 122) if bounds else blank(height)
    seeds = sorted(rows["seed"].unique())
    axes = parts[0]
    for place, name in enumerate(order):
        mine = rows[rows["parameterization"] == name]
        colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
        offsets = [
            place + 0.2 * (seeds.index(seed) - (len(seeds) - 1) / 2) / max(1, len(seeds) / 3) for seed in mine["seed"]
        ]
        axes.plot(mine["value"], offsets, marker, color=colour, markersize=7, clip_on=False)
        if bounds:
            parts[1].plot(mine["value"], [0] * len(mine), marker, color=colour, markersize=5, alpha=0.8)
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    number_axis(axes, "x", rows["value"].to_numpy(dtype=float))
    axes.set_xlabel(f"{metric}, lower is better")
    if bounds:
        _draw_bounds(parts[1], floor, exact, ceilings)
    told = "; ".join(
        f"{name} {', '.join(number(value) for value in rows[rows['parameterization'] == name]['value'])}"
        for name in order
        if (rows["parameterization"] == name).any()
    )
    return inline(figure, f"{metric} of every cell at scale {scale}: {told}.", f"values-{scale}")


def _draw_bounds(axes: Axes, floor: float | None, exact: float | None, ceilings: Mapping[str, float]) -> None:
    if floor is not None:
        axes.plot(floor, 0, "|", color=INK, markersize=16, markeredgewidth=2)
        axes.annotate(f"real {number(floor)}", (floor, 0.55), ha="left", va="bottom")
    if exact is not None and exact > 0:  # of copies alone some metrics are 0
        axes.plot(exact, 0, "|", color=INK, markersize=16, markeredgewidth=2)
        axes.annotate(f"exact {number(exact)}", (exact, -0.55), ha="left", va="top")
    if ceilings:
        low, high = min(ceilings.values()), max(ceilings.values())
        axes.plot(list(ceilings.values()), [0] * len(ceilings), "|", color=INK, markersize=16, markeredgewidth=2)
        span = number(high) if number(low) == number(high) else f"{number(low)} to {number(high)}"
        # A line of its own: beside long names the strip is short, and the two would meet.
        axes.annotate(f"untrained {span}", (high, 1.55), ha="right", va="bottom")
    axes.set_xscale("log")
    axes.set_ylim(-1 if exact is None else -1.7, 2.6)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    log_ticks(axes, "x", *axes.get_xlim())
    axes.set_xlabel("floor to ceiling (log scale)")


@mpl.rc_context(STYLE)
def loss_curves(
    curves: Mapping[int, Sequence[tuple[int, float | None]]], place: int, name: str, scale: str
) -> Markup:
    """Return one parameterization's training loss by step, a line per seed.

    Args:
        curves: by seed, (step, loss); a loss of None was not finite and is marked.
        place: of the parameterization in the grid, which decides its colour.
        name: of the parameterization.
        scale: for the alternative text.
    """
    figure, (axes,) = blank(210)
    finite = [loss for curve in curves.values() for _, loss in curve if loss is not None]
    for index, (seed, curve) in enumerate(curves.items()):
        steps = [step for step, _ in curve]
        losses = [np.nan if loss is None else loss for _, loss in curve]
        axes.plot(
            steps,
            losses,
            color=SERIES[place % len(SERIES)],
            linestyle=DASHES[index % len(DASHES)],
            linewidth=1.3,
            label=f"seed {seed}",
        )
        broken = next((step for step, loss in curve if loss is None), None)
        if broken is not None:
            axes.plot(broken, 0, "X", color=BAD, markersize=9, transform=axes.get_xaxis_transform(), clip_on=False)
    number_axis(axes, "y", np.array(finite or [1.0]))
    step_axis(axes)
    axes.set_ylabel("loss")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=11, loc="upper right", handlelength=2.2)
    return inline(figure, f"Training loss of {name} at scale {scale} by step.", f"loss-{scale}-{name}")


@mpl.rc_context(STYLE)
def clipped_curves(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], order: Sequence[str], scale: str
) -> Markup:
    """Return the share of steps whose gradient was clipped, a line per parameterization.

    Args:
        curves: by parameterization, steps and shares in 0 … 1.
        order: all parameterizations of the grid.
        scale: for the alternative text.
    """
    figure, (axes,) = blank(210 + below(curves))
    for name, (steps, shares) in curves.items():
        axes.plot(steps, np.multiply(shares, 100), label=name, **line(order.index(name)))
    axes.set_ylim(-3, 103)
    axes.set_ylabel("clipped steps, %")
    step_axis(axes)
    name_lines(axes, curves)
    return inline(figure, f"Share of clipped steps at scale {scale} by step.", f"clipped-{scale}")


@mpl.rc_context(STYLE)
def of_check(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    order: Sequence[str],
    label: str,
    along: str,
) -> Markup:
    """Return a quantity of the check on a log axis, a line per parameterization, from the image to the noise.

    Args:
        curves: by parameterization, places and the quantity there; what is not positive leaves a gap.
        order: all parameterizations of the grid.
        label: of the y axis.
        along: of the x axis: the time step, or a log-SNR, which falls.
    """
    figure, (axes,) = blank(230 + below(curves))
    highest = []
    for name, (places, quantity) in curves.items():
        shown = positive(quantity)
        axes.plot(places, shown, label=name, **line(order.index(name)))
        highest.extend(shown[np.isfinite(shown)])
    axes.set_yscale("log")
    if highest:
        log_ticks(axes, "y", min(highest), max(highest))
    if along.startswith("time"):
        step_axis(axes)
    else:
        axes.invert_xaxis()
    axes.set_xlabel(f"{along}: clean → noise")
    axes.set_ylabel(label)
    name_lines(axes, curves)
    return inline(figure, f"{label} over the {along}, for {', '.join(curves)}.", f"check-{label}")


def sheet(images: np.ndarray, real: np.ndarray | None = None) -> Markup:
    """Return the first images of a set as one PNG data URI, pixels enlarged without smoothing.

    Args:
        images: (N, H, W, C) uint8; where C is neither 1 nor 3, all are shown as points (:func:`projection`).
        real: of the training set, in whose plane those are shown; by default in their own.
    """
    if is_picture(images):
        zoom = max(1, round(IMAGE_SIDE / images.shape[1]))
        picture = tile(images[: SHEET_COLUMNS * SHEET_ROWS], SHEET_COLUMNS, zoom, gap=4)
    else:
        picture = projection(images, images if real is None else real, PROJECTION_SIDE)
    return Markup("data:image/png;base64,") + base64.b64encode(png(picture)).decode()
