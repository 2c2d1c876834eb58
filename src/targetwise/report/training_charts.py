"""The report's figures of what led to the values: training by step, and what a variant asks of the network."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from targetwise.report.vega import BAD, DASHES, SERIES, axis, data, finite, inline, lines, thinned, tooltip


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


def clipped_curves(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], order: Sequence[str], scale: str
) -> Markup:
    """Return the share of steps whose gradient was clipped, a line per parameterization.

    Args:
        curves: by parameterization, steps and shares in 0 … 1.
        order: all parameterizations of the grid.
        scale: for the alternative text.
    """
    rows: list[dict[str, Any]] = [
        {"parameterization": name, "step": step, "clipped": finite(100 * share)}
        for name, (steps, shares) in curves.items()
        for step, share in thinned(list(zip(steps, shares, strict=True)))
    ]
    y = {"type": "quantitative", "title": "clipped steps, %", "scale": {"domain": [0, 100]}}
    specification = lines(rows, "step", "clipped", order, axis("step", [row["step"] for row in rows], log=False), y)
    return inline(specification, f"Share of clipped steps at scale {scale} by step.", f"clipped-{scale}")


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
    rows: list[dict[str, Any]] = [
        {"parameterization": name, along: finite(at), label: finite(value) if value and value > 0 else None}
        for name, (places, quantity) in curves.items()
        for at, value in thinned(list(zip(places, quantity, strict=True)))
    ]
    x = axis(f"{along}: clean → noise", [row[along] for row in rows], log=False)
    x["scale"]["reverse"] = not along.startswith("time")
    y = axis(label, [row[label] for row in rows if row[label] is not None] or [1.0], log=True)
    text = f"{label} over the {along}, for {', '.join(curves)}."
    return inline(lines(rows, along, label, order, x, y), text, f"check-{label}")
