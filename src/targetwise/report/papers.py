"""The tables of papers beside a study's own numbers, for variants with the same output and the same objective.

Their protocols are others, so only the order of outputs can be compared, never a number with a number.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from targetwise.recipe import variants

NUMBERS = Path("workflow/resources/papers.csv")

#: What a flat loss in the space of a target on a variance-preserving path weighs errors of x0 with.
FLAT = {"x0": "constant", "epsilon": "snr", "v": "snr_plus_one"}


def beside(study: Mapping[str, Any], summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the published tables that speak of this study's variants, with our means.

    A table needs the study's data set (its kind), or its network, as ``papers.csv`` says; and two of its entries must
    be variants of the study, because one number under another protocol says nothing.

    Args:
        study: the whole configuration.
        summary: of :func:`targetwise.report.statistics.summary`.

    Returns:
        A mapping per table with ``source``, ``table``, ``caveats``, ``settings`` and ``rows``: each with ``name``,
        ``fid`` (None where the paper has none) and ``ours``, a mean per setting.
    """
    numbers = pd.read_csv(NUMBERS, keep_default_na=False)
    kind = study["datasets"][study["data"]["dataset"]]["kind"]
    networks = {variants.network_name(study["scales"][scale]) for scale in study["grid"]["scales"]}
    settings = list(dict.fromkeys(summary["setting"]))
    means = summary.set_index(["parameterization", "setting"])["mean"]
    found = []
    for (source, table), entries in numbers.groupby(["source", "table"], sort=False):
        first = entries.iloc[0]
        if (first["dataset"] and first["dataset"] != kind) or (first["network"] and networks != {first["network"]}):
            continue
        rows = [
            {
                "name": name,
                "fid": float(entry["fid"]) if entry["fid"] else None,
                "ours": [means.get((name, setting)) for setting in settings],
            }
            for entry in entries.to_dict("records")
            for name in study["grid"]["parameterizations"]
            if entry["objective"] in _objectives(study, name) and entry["target"] == _target(study, name)
        ]
        if len(rows) > 1:
            caveats = list(dict.fromkeys(entries["caveat"]))
            found.append(
                {"source": source, "table": table, "caveats": caveats[:1], "settings": settings, "rows": rows}
            )
    return found


def _target(study: Mapping[str, Any], name: str) -> str:
    return str(variants.defined(study, name)["target"])


def _objectives(study: Mapping[str, Any], name: str) -> set[str]:
    """Return what papers call a variant's objective: its weight on errors of x0, or the space of a flat loss."""
    meaning = variants.defined(study, name)
    if meaning["weighting"] != "constant":
        return {str(meaning["weighting"])}
    space = str(meaning["loss_space"])
    return {f"loss of {space}"} | ({FLAT[space]} if space in FLAT else set())
