"""The rows to which a reader of the page puts questions: every draw, with all that varies and was measured."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from targetwise import cells
from targetwise.cells import Cell
from targetwise.files import read_whole
from targetwise.metric.measures import title
from targetwise.report.answer import metric_of
from targetwise.report.panels import Logs
from targetwise.report.table import column_of
from targetwise.report.vega import finite

#: What a training took.
COSTS = ("training, minutes", "images per second", "peak memory, GB")


def content(config: Mapping[str, Any], frame: pd.DataFrame, folder: Path, logs: Logs) -> dict[str, Any]:
    """Return what the page's script needs to draw any quantity over any other, by any axis.

    Args:
        config: the whole configuration.
        frame: of :func:`targetwise.report.table.table`.
        folder: where the page will be; links are relative to it.
        logs: of :func:`targetwise.report.panels.training_logs`.

    Returns:
        ``rows`` in the order of ``frame``, an object each; ``quantities``, what was measured, the metric first; and
        ``axes``, what rows differ in, the variant's name first.
    """
    metric, extractor = metric_of(frame), config["metric"]["extractor"]
    numbers = {"value": metric} | {column_of(name): title(name, extractor) for name in config["metric"]["names"][1:]}
    trained = {cell: _cost(cell, logs.get(cell, [])) for cell in cells.grid(config)}
    axes = ["parameterization", "scale", "sampling", "seed", *frame.attrs["fields"]]
    rows = []
    for row in frame.to_dict("records"):
        cell = Cell(config["study"], row["parameterization"], row["scale"], row["seed"])
        manifest = cell.folder / "manifest.json"
        rows.append(
            {
                "cell": cell.name,
                **{axis: _plain(row[axis]) for axis in axes},
                "draw": row["draw"],
                "status": row["status"],
                **{name: _plain(row[column]) for column, name in numbers.items() if column in row},
                "error": _plain(row["error"]),
                "final loss": _plain(row["final_loss"]),
                "clipped steps, %": _plain(100 * row["clipped_share"]),
                **trained[cell],
                "model": _plain(row["model_sha256"]),
                "manifest": os.path.relpath(manifest, folder) if manifest.exists() else None,
            }
        )
    measured = [*numbers.values(), "final loss", "clipped steps, %", *COSTS]
    return {
        "quantities": [name for name in measured if any(row.get(name) is not None for row in rows)],
        "axes": [axis for axis in axes if axis == axes[0] or len({str(row[axis]) for row in rows}) > 1],
        "rows": rows,
    }


def _cost(cell: Cell, lines: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return what a training took, as far as it is known."""
    training = read_whole(cell.folder / "training.json") or {}
    speeds = sorted(line["images_per_second"] for line in lines if line.get("images_per_second"))
    memory = [line["memory_peak_bytes"] for line in lines if line.get("memory_peak_bytes")]
    seconds = training.get("seconds")
    found = (
        seconds / 60 if seconds else None,
        speeds[len(speeds) // 2] if speeds else None,
        max(memory) / 1e9 if memory else None,
    )
    return {name: finite(value) for name, value in zip(COSTS, found, strict=True)}


def _plain(value: Any) -> Any:
    """Return a value of the table as JSON has it; nothing known is null."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)) or value is pd.NA:
        return None
    return finite(value) if isinstance(value, float) else value
