"""What the page shows of one setting: tables and figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from targetwise import cells
from targetwise.cells import Cell
from targetwise.cells.agreement import Agreement
from targetwise.cells.outcome import read_curve
from targetwise.inference.compare import Comparison
from targetwise.recipe import variants
from targetwise.recipe.samplings import way
from targetwise.report import charts, probe_charts, training_charts
from targetwise.report.answer import metric_of

#: The lines of each training's log.
Logs = dict[Cell, list[dict[str, Any]]]

#: Comparisons of a setting that the page lists; of 200 variants there are 19,900, which are in comparisons.csv.
LISTED = 300


def of_setting(
    agreement: Agreement,
    here: pd.DataFrame,
    summary: pd.DataFrame,
    pairs: pd.DataFrame,
    comparison: Comparison,
    limits: Mapping[Any, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what the template needs of one setting.

    Args:
        agreement: of the study.
        here: the setting's rows of :func:`targetwise.report.table.table`.
        summary: of :func:`targetwise.report.statistics.summary`, of all settings, as the next.
        pairs: of :func:`targetwise.report.statistics.pairs`.
        comparison: of the setting.
        limits: of :func:`targetwise.report.origins.bounds`.
    """
    config = agreement.config
    order, smallest = config["grid"]["parameterizations"], config["comparison"]["smallest_difference"]
    setting, scale = here["setting"].iloc[0], here["scale"].iloc[0]
    rows, metric = here[here["status"] == "finished"], metric_of(here)
    of_seeds = comparison.pairs[comparison.pairs["seeds"] > 0]
    here_summary = summary[summary["setting"] == setting]
    shown = charts.worth_drawing(of_seeds, here_summary)
    by_themselves = pairs[(pairs["setting"] == setting) & (pairs["seeds"] > 0)]
    # Only what was measured with as many images, and of networks that were sampled in the same way.
    ways = [way(config, sampling) for sampling in here["sampling"].unique()]

    def alike(bound: Mapping[str, Any]) -> bool:
        return way(config, bound["sampler"]) in ways

    ceilings = {
        key[0]: row["value"]
        for key, row in limits.items()
        if isinstance(key, tuple) and key[1] == scale and alike(row)
    }
    floor, exact = (
        limits[name]["value"] if name in limits and set(rows["n"]) <= {limits[name]["n"]} else None
        for name in ("floor", "exact")
    )
    exact = exact if "exact" in limits and alike(limits["exact"]) else None
    return {
        "name": setting,
        "summary": [
            {**row, "marks": _marks(rows[rows["parameterization"] == row["parameterization"]])}
            for row in here_summary.sort_values("mean", kind="stable").to_dict("records")
        ],
        "comparison": comparison,
        "compared": charts.worth_drawing(of_seeds, here_summary, LISTED).to_dict("records"),
        "comparisons": len(of_seeds),
        "intervals": charts.intervals(shown, comparison.scale, smallest, metric, setting) if len(shown) else None,
        "left_out": len(of_seeds) - len(shown),
        "pairs": charts.worth_drawing(by_themselves, here_summary, LISTED).to_dict("records"),
        "dots": charts.values(rows, order, metric, setting) if len(rows) else None,
        "limits": charts.limits(rows, order, metric, setting, floor, exact, ceilings) if len(rows) else None,
    }


def training_logs(config: Mapping[str, Any]) -> Logs:
    """Return the lines of each training's log, as far as there is one."""
    paths = {cell: cell.folder / "train.jsonl" for cell in cells.grid(config)}
    return {cell: read_curve(path) for cell, path in paths.items() if path.exists()}


def of_training(
    config: Mapping[str, Any], scale: str, of_cells: Mapping[Cell, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return what the template needs of the trainings at one scale, however they are sampled.

    Args:
        config: the whole configuration.
        scale: whose cells are shown.
        of_cells: what :func:`training_logs` returns.
    """
    order = config["grid"]["parameterizations"]
    logs: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in order}
    for cell, lines in of_cells.items():
        if cell.scale == scale:
            logs[cell.parameterization][cell.seed] = lines
    losses = {
        name: {seed: [(line["step"], line["loss"]) for line in lines] for seed, lines in by_seed.items() if lines}
        for name, by_seed in logs.items()
    }
    norms, clipped = (
        {name: curve for name, by_seed in logs.items() if (curve := _mean(list(by_seed.values()), field))[0]}
        for field in ("gradient_norm", "clipped_share")
    )
    probed = probe_charts.records(config, scale)
    lengths = {variants.settings(config, name)["training"]["gradient_clip"] for name in norms}
    return {
        "name": scale,
        "losses": [
            {"name": name, "figure": training_charts.loss_curves(by_seed, order.index(name), name, scale)}
            for name, by_seed in losses.items()
            if by_seed
        ],
        "probes": probe_charts.of_levels(config, scale, probed),
        "course": probe_charts.of_course(config, scale, probed),
        "gradient": training_charts.gradient_curves(norms, order, scale, sorted(lengths)) if norms else None,
        "clipped": training_charts.clipped_curves(clipped, order, scale) if clipped else None,
    }


def _marks(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(mark for text in rows["marks"].dropna() for mark in text.split("; ") if mark))


def _mean(runs: list[list[dict[str, Any]]], field: str) -> tuple[list[int], list[float | None]]:
    """Average over seeds, at each step over the seeds that logged a number there; None where no seed's was finite."""
    by_step: dict[int, list[float]] = {}
    for line in (line for run in runs for line in run if field in line):
        known = by_step.setdefault(line["step"], [])
        known += [line[field]] if line[field] is not None else []
    steps = sorted(by_step)
    return steps, [float(np.mean(by_step[step])) if by_step[step] else None for step in steps]
