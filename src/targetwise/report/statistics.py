"""From the table of all cells to means, spreads, comparisons that hold together, and a plain check of each pair."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from targetwise.inference.compare import Comparison, compare
from targetwise.inference.contrasts import KEYS, cell_means
from targetwise.inference.declared import Declared
from targetwise.inference.quantiles import CONFIDENCE
from targetwise.inference.sources import Sources, sources


def declared(config: Mapping[str, Any]) -> Declared:
    """Return what a study declares of its comparisons."""
    asked = config["comparison"]
    return Declared(asked["baseline"], asked["smallest_difference"], asked["families"] or {})


def compared(frame: pd.DataFrame, asked: Declared) -> dict[str, Comparison]:
    """Return the comparison of the parameterizations in each setting, with seeds as blocks.

    Args:
        frame: of :func:`targetwise.report.table.table`.
        asked: the baseline, the smallest difference of interest and the families.
    """
    # A cell without a value is told, so that a parameterization without any is not forgotten.
    of_cells = frame[KEYS].drop_duplicates().merge(cell_means(frame)[[*KEYS, "value"]], how="left", on=KEYS)
    return {str(setting): compare(rows, asked) for setting, rows in of_cells.groupby("setting", sort=False)}


def comparisons(frame: pd.DataFrame, asked: Declared) -> pd.DataFrame:
    """Return the comparisons of all settings in one table, a row each, with the method of their intervals."""
    scales = frame.drop_duplicates("setting").set_index("setting")["scale"]
    tables = [
        each.pairs.assign(setting=setting, scale=scales[setting], measure=each.scale, method=each.method)
        for setting, each in compared(frame, asked).items()
    ]
    whole = pd.concat(tables, ignore_index=True)
    return whole[["setting", "scale", *(name for name in whole if name not in ("setting", "scale"))]]


def spread(frame: pd.DataFrame) -> dict[str, Sources]:
    """Return for each setting where the scatter of one parameterization's values comes from."""
    finished = frame[frame["status"] == "finished"]
    finished = finished.assign(error=finished["error"] / finished["value"].abs())
    return {str(setting): sources(rows) for setting, rows in finished.groupby("setting", sort=False)}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread over seeds for each setting and parameterization, in the grid's order.

    Draws are averaged within a seed first. ``deviation`` is the sample standard deviation over seeds (NaN for one
    seed), ``error`` the standard error of one value from its finite samples (NaN where unknown); ``seeds`` counts
    the finished ones, ``diverged`` and ``missing`` the others.
    """
    of_seeds = dict(tuple(cell_means(frame).groupby(["setting", "parameterization"])["value"]))
    rows = []
    for (setting, scale, name), group in frame.groupby(["setting", "scale", "parameterization"], sort=False):
        values = of_seeds.get((setting, name), frame["value"].iloc[:0])
        rows.append(
            {
                "setting": setting,
                "scale": scale,
                "parameterization": name,
                "mean": values.mean(),
                "deviation": values.std(ddof=1),
                "error": np.sqrt((group["error"] ** 2).mean()),
                "seeds": len(values),
                "diverged": group[group["status"] == "diverged"]["seed"].nunique(),
                "missing": group[group["status"] == "missing"]["seed"].nunique(),
                "clipped_share": group["clipped_share"].mean(),
            }
        )
    return pd.DataFrame(rows)


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the paired difference a − b of every two parameterizations in each setting, each by itself.

    A plain check of :func:`comparisons`, which use the scatter of all and hold together. Cells of one seed share
    data, noise and initial weights, so their difference is taken seed by seed. ``low`` and ``high`` are the 95 %
    confidence interval of Student's t; ``verdict`` is ``a``, ``b`` (the one with the lower, better value),
    ``not resolved`` (the interval holds 0) or ``too few seeds`` (under two in common).
    """
    by_seed = cell_means(frame)[[*KEYS, "value"]]
    names = frame["parameterization"].unique()
    first, second = np.triu_indices(len(names), 1)
    tables = []
    for setting, scale in frame[["setting", "scale"]].drop_duplicates().itertuples(index=False):
        here = by_seed[by_seed["setting"] == setting].pivot_table(
            index="seed", columns="parameterization", values="value", observed=True
        )
        values = here.reindex(columns=names).to_numpy(dtype=float).T
        found = _paired(values[first] - values[second], names[first], names[second])
        tables.append(found.assign(setting=setting, scale=scale))
    whole = pd.concat(tables, ignore_index=True)
    return whole[["setting", "scale", *(name for name in whole if name not in ("setting", "scale"))]]


def _paired(differences: np.ndarray, a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Return a row for each pair, (P,), from its differences seed by seed, (P, S); NaN where a seed lacks a value."""
    count = np.isfinite(differences).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(differences, axis=1) / count
        squares = np.nansum((differences - mean[:, None]) ** 2, axis=1)
        deviation = np.sqrt(np.where(count > 1, squares / (count - 1), np.nan))
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * deviation / np.sqrt(count)
        p_value = 2 * stats.t.sf(np.abs(mean) / (deviation / np.sqrt(count)), count - 1)
    equal = np.where(mean == 0, 1.0, 0.0)
    return pd.DataFrame(
        {
            "a": a,
            "b": b,
            "seeds": count,
            "difference": mean,
            "deviation": deviation,
            "low": mean - half,
            "high": mean + half,
            "p_value": np.where(deviation == 0, equal, p_value),
            "verdict": np.select(
                [count < 2, np.abs(mean) <= half, mean < 0], ["too few seeds", "not resolved", a], default=b
            ),
        }
    )
