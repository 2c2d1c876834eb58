"""What probes found at each noise level: the error of x0, how far it is above the least possible, and the like."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from targetwise import cells
from targetwise.cells import Cell, probes
from targetwise.recipe import kinds, variants
from targetwise.report.vega import axis, finite, inline, lines

#: What probes found of each cell that was probed, by :func:`targetwise.cells.probes.read_record`.
Records = Mapping[Cell, Mapping[str, Any]]


def records(config: Mapping[str, Any], scale: str) -> Records:
    """Return the records of a scale's cells, as far as there are any."""
    paths = {cell: cell.folder / probes.NAME for cell in cells.grid(config) if cell.scale == scale}
    return {cell: probes.read_record(path) for cell, path in paths.items() if path.exists()}


def of_levels(config: Mapping[str, Any], scale: str, of_cells: Records) -> list[Markup]:
    """Return a figure for each probe whose numbers are of ranges of time or of noise levels, a line per variant.

    Args:
        config: the whole configuration.
        scale: whose cells are shown; each line is the mean over seeds.
        of_cells: its :func:`records`.
    """
    found = {cell: record["values"] or {} for cell, record in of_cells.items()}
    order = config["grid"]["parameterizations"]
    return [chart for name in config["probes"] for chart in _of_probe(name, found, order, scale)]


def of_course(config: Mapping[str, Any], scale: str, of_cells: Records) -> list[Markup]:
    """Return a figure of each such probe over the steps of the training, if it was probed at snapshots.

    Args:
        config: the whole configuration.
        scale: whose cells are shown; each line is the mean over noise levels and seeds.
        of_cells: its :func:`records`.
    """
    order = config["grid"]["parameterizations"]
    return [chart for name in config["probes"] for chart in _over_steps(config, name, of_cells, order, scale)]


def _over_steps(
    config: Mapping[str, Any], name: str, found: Records, order: list[str], scale: str
) -> Iterator[Markup]:
    places = _places(name)
    means: dict[tuple[str, int], list[float]] = {}
    for cell, record in found.items() if places else ():
        last = variants.settings(config, cell.parameterization)["training"]["steps"]
        at_steps = {**record.get("snapshots", {}), **({last: record["values"]} if record["values"] else {})}
        for step, values in at_steps.items():
            if number := [values[each] for each in places if each in values]:
                means.setdefault((cell.parameterization, int(step)), []).append(float(np.mean(number)))
    rows: list[dict[str, Any]] = [
        {"parameterization": variant, "step": step, name: finite(float(np.mean(means[variant, step])))}
        for variant, step in sorted(means, key=lambda each: (order.index(each[0]), each[1]))
    ]
    if rows and any("snapshots" in record for record in found.values()):
        x = axis("step", [row["step"] for row in rows])
        y = axis(f"{name}, mean over noise levels", [row[name] for row in rows])
        specification = lines(rows, "step", name, order, x, y)
        yield inline(specification, f"{name} over the training at scale {scale}.", f"{name}-steps-{scale}")


def _places(name: str) -> dict[str, float]:
    gives = kinds.constant("probes", name, "GIVES", None)
    return levels(gives) if isinstance(gives, dict) else {}


def _of_probe(name: str, found: Mapping[Cell, Mapping[str, float]], order: list[str], scale: str) -> Iterator[Markup]:
    places = _places(name)
    gives = kinds.constant("probes", name, "GIVES", {})
    along = "t / T" if any(isinstance(gives[each], tuple) for each in places) else "log-SNR λ"
    rows: list[dict[str, Any]] = []
    for variant in order:
        mine = [values for cell, values in found.items() if cell.parameterization == variant and values]
        for number, place in places.items() if mine else ():
            mean = float(np.mean([values[number] for values in mine if number in values]))
            rows.append({"parameterization": variant, along: place, name: finite(mean) if mean > 0 else None})
    shown = [row[name] for row in rows if row[name] is not None]
    if shown:
        x = axis(f"{along}: clean → noise", list(places.values()), log=False)
        x["scale"]["reverse"] = along.startswith("log")
        specification = lines(rows, along, name, order, x, axis(name, shown))
        yield inline(specification, f"{name} over the {along} at scale {scale}.", f"{name}-{scale}")


def levels(gives: Mapping[str, Any]) -> dict[str, float]:
    """Return where the numbers of a probe lie, if there are at least three places.

    Args:
        gives: by a number's name its place: a noise level, or a range of time, first and stop. Of ranges only those
            are taken that follow each other from the first on; what has no place is left out.
    """
    found: dict[str, float] = {}
    reached: Any = None
    for name, place in gives.items():
        if isinstance(place, tuple) and (reached is None or place[0] == reached):
            found[name], reached = sum(place) / 2, place[1]
        elif isinstance(place, int | float):
            found[name] = float(place)
    return found if len(found) > 2 else {}
