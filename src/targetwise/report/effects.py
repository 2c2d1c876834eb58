"""What a study declared beside its comparisons: effects of factors, and curves over numeric fields."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from targetwise.inference.contrasts import KEYS, cell_means
from targetwise.inference.curves import Curve, curves
from targetwise.inference.factors import Factors, factors
from targetwise.recipe.comparisons import AXES

#: The parts of an analysis of factors that ``effects.csv`` lists, in this order.
PARTS = ("terms", "levels", "effects", "interactions")


def of_factors(frame: pd.DataFrame, config: Mapping[str, Any]) -> dict[str, Factors]:
    """Return the effects of the declared factors, by the axes that are not among them: a scale, mostly.

    Args:
        frame: of :func:`targetwise.report.table.table`.
        config: the whole configuration.
    """
    names = config["comparison"]["factors"]
    if not names:
        return {}
    apart = [axis for axis in AXES if axis not in names and len(frame[axis].unique()) > 1]
    cells = cell_means(frame)
    groups = cells.groupby(apart, sort=False) if apart else [((), cells)]
    return {", ".join(map(str, key)): factors(rows, names) for key, rows in groups}


def of_axes(frame: pd.DataFrame, config: Mapping[str, Any]) -> list[Curve]:
    """Return the declared curves, one for each group of cells that differ in the axis alone."""
    cells = frame.drop_duplicates(KEYS).drop(columns="value")
    cells = cells.merge(cell_means(frame)[[*KEYS, "value"]], on=KEYS, how="left")
    return [curve for axis in config["comparison"]["curves"] for curve in curves(cells, axis, frame.attrs["fields"])]


def tables(frame: pd.DataFrame, config: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return what is written of both, by the names ``effects`` and ``curves``; only what is declared."""
    found = {
        "effects": list(_effects(of_factors(frame, config))),
        "curves": [
            curve.points.assign(axis=curve.axis, group=named(curve.group), scale=curve.scale)
            for curve in of_axes(frame, config)
        ],
    }
    declared = {"effects": "factors", "curves": "curves"}
    return {
        name: pd.concat(each, ignore_index=True) if each else pd.DataFrame()
        for name, each in found.items()
        if config["comparison"][declared[name]]
    }


def named(group: Mapping[str, str]) -> str:
    """Return in what a curve differs from the others, e.g. ``target v, scale tiny``.

    The loss is in the target's own space unless something else is said.
    """
    own = {field: value for field, value in group.items() if field != "loss_space" or value != group.get("target")}
    return ", ".join(f"{field} {value}" for field, value in own.items())


def _effects(found: Mapping[str, Factors]) -> Iterator[pd.DataFrame]:
    for where, each in found.items():
        for part in PARTS:
            table: pd.DataFrame = getattr(each, part)
            table = table.assign(at=where, part=part, scale=each.scale)
            yield table[["at", "part", *(name for name in table if name not in ("at", "part"))]]
