"""The metric by what the network predicts and by what it is trained for, on each path."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from targetwise.report.vega import INK, Spec, data, finite, inline, plain, tooltip, wrapped
from targetwise.report.words import number

OUTPUT, OBJECTIVE, PATH = "target", ["loss_space", "weighting"], "diffusion.schedule"


def heat_maps(frame: pd.DataFrame, metric: str) -> list[Markup]:
    """Return a map of means over seeds for each setting and path in which outputs and objectives are crossed.

    Args:
        frame: of :func:`targetwise.report.table.table`.
        metric: what the rows measure.
    """
    fields = frame.attrs["fields"]
    named = [field for field in OBJECTIVE if field in fields]
    if OUTPUT not in fields or not named:
        return []
    finished = frame[frame["status"] == "finished"].copy()
    told = [[_objective(row, own) for row in finished[[OUTPUT, *named]].to_dict("records")] for own in (False, True)]
    finished["objective"] = min(told, key=lambda objectives: len(set(objectives)))  # whichever makes the denser map
    apart = ["setting", *([PATH] if PATH in fields else [])]
    return [
        _map(here, metric, ", ".join(map(str, where)))
        for where, here in finished.groupby(apart, sort=False)
        if _is_crossed(here[OUTPUT], here["objective"])
    ]


def _is_crossed(outputs: pd.Series, objectives: pd.Series) -> bool:
    """Return whether an output has several objectives and an objective several outputs; a diagonal is no map."""
    pairs = set(zip(outputs, objectives, strict=True))
    return len(pairs) > max(len(set(outputs)), len(set(objectives))) and len(set(objectives)) > 1


def _objective(row: dict[Any, Any], own: bool) -> str:
    """Return what a variant is trained for; ``own`` says only that the loss is in the output's space, where it is."""
    space, weighting = row.get("loss_space"), row.get("weighting")
    where = "loss in its own space" if own and space == row[OUTPUT] else f"loss in {space}"
    return ", ".join(filter(None, [where if space else "", f"weighting {weighting}" if weighting else ""]))


def _map(here: pd.DataFrame, metric: str, where: str) -> Markup:
    field = plain(metric)
    means = here.groupby([OUTPUT, "objective"], sort=False)["value"].agg(["mean", "count"]).reset_index()
    low, high = means["mean"].min(), means["mean"].max()
    log = bool(low > 0 and high > 5 * low)
    rows = [
        {
            "output": row[OUTPUT],
            "objective": row["objective"],
            field: finite(row["mean"]),
            "values": int(row["count"]),
            "text": number(row["mean"]),
        }
        for row in means.to_dict("records")
    ]
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    encoding: Spec = {
        "x": {"field": "output", "type": "nominal", "sort": None, "axis": {"orient": "top", "labelAngle": 0}},
        "y": {
            "field": "objective",
            "type": "nominal",
            "sort": None,
            "title": None,
            "axis": {"labelExpr": wrapped(" ", 24)},
        },
    }
    fill = {
        "field": field,
        "type": "quantitative",
        "scale": {"type": "log" if log else "linear", "scheme": "blues", "domain": [finite(low), finite(high)]},
        "legend": None,
    }
    dark = {"test": f"datum[{field!r}] > {middle}", "value": "white"}
    specification = {
        "data": data(rows),
        "title": {"text": f"{metric} at {where}", "anchor": "start", "fontSize": 13, "color": INK},
        "height": 34 * len(set(means["objective"])),
        "encoding": encoding,
        "layer": [
            {
                "mark": "rect",
                "encoding": {"color": fill, "tooltip": tooltip("output", "objective", field, "values")},
            },
            {"mark": "text", "encoding": {"text": {"field": "text"}, "color": {"condition": dark, "value": "black"}}},
        ],
    }
    told = "; ".join(f"{row['output']} with {row['objective']} {row['text']}" for row in rows)
    return inline(specification, f"Mean {metric} at {where}: {told}.", f"map-{where}")
