"""The report's figures of what led to the values: training by step, and what a variant asks of the network."""

import json
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from markupsafe import Markup

from targetwise.report.vega import BAD, DASHES, SERIES, axis, data, finite, inline, lines, thinned, tooltip
from targetwise.report.words import some

#: By parameterization, steps and a quantity at each; None leaves a gap.
Curves = Mapping[str, tuple[Sequence[int], Sequence[float | None]]]


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
    rows: list[dict[str, Any]] = [
        {"seed": seed, "step": step, "loss": finite(loss)}
        for seed, curve in curves.items()
        for step, loss in thinned(curve)
    ]
    broken = [
        {"seed": seed, "step": next(step for step, loss in curve if loss is None)}
        for seed, curve in curves.items()
        if any(loss is None for _, loss in curve)
    ]
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    steps = axis("step", [row["step"] for row in rows], log=False)
    line = {
        "mark": {
            "type": "line",
            "strokeWidth": 1.3,
            "color": SERIES[place % len(SERIES)],
            "invalid": "break-paths-show-domains",
        },
        "encoding": {
            "x": {"field": "step", **steps},
            "y": {"field": "loss", **axis("loss", losses or [1.0])},
            "strokeDash": {
                "field": "seed",
                "type": "nominal",
                "scale": {"range": DASHES},
                "legend": {"title": "seed"} if len(curves) > 1 else None,
            },
            "tooltip": tooltip("seed", "step", "loss"),
        },
    }
    cross = {
        "data": {"values": broken},
        "mark": {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 60, "stroke": BAD, "strokeWidth": 2},
        "encoding": {"x": {"field": "step", **steps}, "y": {"value": 150}, "tooltip": tooltip("seed", "step")},
    }
    specification = {"data": data(rows), "height": 150, "layer": [line, *([cross] if broken else [])]}
    return inline(specification, f"Training loss of {name} at scale {scale} by step.", f"loss-{scale}-{name}")


def gradient_curves(curves: Curves, order: Sequence[str], scale: str, lengths: Sequence[float]) -> Markup:
    """Return the length of the gradient on a log axis, a line per parameterization, and what it is clipped to.

    Args:
        curves: by parameterization, steps and lengths.
        order: all parameterizations of the grid.
        scale: for the alternative text.
        lengths: that gradients are clipped to, each a line across.
    """
    rows: list[dict[str, Any]] = [
        {"parameterization": name, "step": step, "gradient norm": finite(norm) if norm and norm > 0 else None}
        for name, (steps, norms) in curves.items()
        for step, norm in thinned(list(zip(steps, norms, strict=True)))
    ]
    known = [row["gradient norm"] for row in rows if row["gradient norm"] is not None]
    y = axis("gradient norm", [*known, *lengths], log=True)
    drawn = lines(rows, "step", "gradient norm", order, axis("step", [row["step"] for row in rows], log=False), y)
    clipped = {
        "data": {"values": [{"clipped to": length} for length in lengths]},
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {"y": {"field": "clipped to", **y}, "tooltip": tooltip("clipped to")},
    }
    line = {part: drawn.pop(part) for part in ("params", "mark", "encoding")}
    text = f"Mean gradient norm at scale {scale} by step, for {', '.join(curves)}."
    return inline({**drawn, "layer": [clipped, line]}, text, f"gradient-{scale}")


def clipped_curves(curves: Curves, order: Sequence[str], scale: str) -> Markup:
    """Return the share of steps whose gradient was clipped, a line per parameterization.

    Args:
        curves: by parameterization, steps and shares in 0 … 1.
        order: all parameterizations of the grid.
        scale: for the alternative text.
    """
    rows: list[dict[str, Any]] = [
        {"parameterization": name, "step": step, "clipped": None if share is None else finite(100 * share)}
        for name, (steps, shares) in curves.items()
        for step, share in thinned(list(zip(steps, shares, strict=True)))
    ]
    y = {"type": "quantitative", "title": "clipped steps, %", "scale": {"domain": [0, 100]}}
    specification = lines(rows, "step", "clipped", order, axis("step", [row["step"] for row in rows], log=False), y)
    return inline(specification, f"Share of clipped steps at scale {scale} by step.", f"clipped-{scale}")


def of_check(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    groups: Sequence[Sequence[str]],
    label: str,
    along: str,
) -> Markup:
    """Return a quantity of the check on a log axis, from the image to the noise, a line for each curve there is.

    Args:
        curves: by parameterization, places and the quantity there; what is not positive leaves a gap.
        groups: of parameterizations whose curves are the same; the first one's is drawn, and the legend names all.
        label: of the y axis.
        along: of the x axis: the time step, or a log-SNR, which falls.
    """
    named = {group[0]: some(group) for group in groups}
    rows: list[dict[str, Any]] = [
        {"parameterization": names, along: finite(at), label: finite(value) if value and value > 0 else None}
        for name, names in named.items()
        for at, value in thinned(list(zip(*curves[name], strict=True)))
    ]
    x = axis(f"{along}: clean → noise", [row[along] for row in rows], log=False)
    x["scale"]["reverse"] = not along.startswith("time")
    y = axis(label, [row[label] for row in rows if row[label] is not None] or [1.0], log=True)
    drawn = lines(rows, along, label, list(named.values()), x, y)
    broken = {names: wrap(names, 38, break_long_words=False, break_on_hyphens=False) for names in named.values()}
    for channel in ("color", "strokeDash"):
        drawn["encoding"][channel]["legend"]["labelExpr"] = f"{json.dumps(broken)}[datum.label]"
    text = f"{label} over the {along}, for {'; '.join(map(', '.join, groups))}."
    return inline(drawn, text, f"check-{label}")
