"""The numbers of cells that a claim may be about: of the metrics, of how a training went, and of the probes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from targetwise.cells import Cell, probes
from targetwise.cells.agreement import Agreement
from targetwise.cells.outcome import read_curve, read_outcome
from targetwise.recipe.predictions import DIVERGED
from targetwise.report.table import column_of

Lines = Sequence[Mapping[str, Any]]

#: A mean loss between two lines of a training's log counts as a spike so many median deviations above the median.
SPIKE = 6

KEYS = ["parameterization", "scale", "sampling", "seed"]


def values(agreement: Agreement, frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return one number for each cell and sampling, draws averaged; NaN where there is none.

    Args:
        agreement: of the study.
        frame: of :func:`targetwise.report.table.table`.
        quantity: one of :func:`targetwise.recipe.quantities.known`.

    Returns:
        Columns parameterization, scale, sampling, seed, status and value. What a training has is the same in all its
        samplings.
    """
    config = agreement.config
    if quantity == config["metric"]["names"][0]:
        numbers = frame["value"]
    elif quantity in config["metric"]["names"]:
        numbers = frame[column_of(quantity)]
    elif quantity == DIVERGED:
        numbers = frame["status"].map({"finished": 0.0, "diverged": 1.0})
    elif quantity in ("final_loss", "clipped_share"):
        numbers = frame[quantity].where(frame["status"] == "finished")
    elif quantity in OF_CURVES:
        return _of_cells(config, frame, lambda cell: OF_CURVES[quantity](read_curve(cell.folder / "train.jsonl")))
    else:
        return _of_cells(config, frame, lambda cell: _probed(agreement, cell, quantity))
    return (
        frame.assign(value=numbers).groupby([*KEYS, "status"], sort=False, dropna=False)["value"].mean().reset_index()
    )


def images_per_second(lines: Lines) -> float:
    """Return the median speed of a training."""
    return _median(lines, "images_per_second")


def memory_peak_bytes(lines: Lines) -> float:
    """Return the most memory that a training had in use."""
    return max((float(line["memory_peak_bytes"]) for line in lines if "memory_peak_bytes" in line), default=np.nan)


def loss_spikes(lines: Lines) -> float:
    """Return the share of a log's lines, after its first quarter, whose loss is a spike: more than median + 6 MAD.

    A loss that is not finite is one, and median and deviation are those of the others.
    """
    losses = np.array([np.inf if line["loss"] is None else line["loss"] for line in lines[len(lines) // 4 :]])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return 1.0 if len(losses) else np.nan
    median = np.median(finite)
    return float(np.mean(losses > median + SPIKE * np.median(np.abs(finite - median))))


OF_CURVES: dict[str, Callable[[Lines], float]] = {
    "images_per_second": images_per_second,
    "loss_spikes": loss_spikes,
    "memory_peak_bytes": memory_peak_bytes,
}


def _of_cells(config: Mapping[str, Any], frame: pd.DataFrame, measure: Callable[[Cell], float]) -> pd.DataFrame:
    found = frame[[*KEYS, "status"]].drop_duplicates().reset_index(drop=True)

    def number(row: pd.Series) -> float:
        cell = Cell(config["study"], row["parameterization"], row["scale"], row["seed"])
        return np.nan if row["status"] == "missing" else measure(cell)

    return found.assign(value=found.apply(number, axis=1).astype(float))


def _probed(agreement: Agreement, cell: Cell, quantity: str) -> float:
    path = cell.folder / probes.NAME
    if not path.exists():
        return np.nan
    if not agreement.is_probed(cell, probes.read_record(path), read_outcome(cell.folder / "training.json")):
        return np.nan
    return probes.read(cell)[0].get(quantity, np.nan)


def _median(lines: Lines, name: str) -> float:
    known = [line[name] for line in lines if name in line]
    return float(np.median(known)) if known else np.nan
