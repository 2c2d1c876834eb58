"""The reference task's published numbers beside a study's own, and in what the two protocols differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from targetwise.recipe import config as configuration
from targetwise.recipe import variants

NUMBERS = Path("workflow/resources/published.csv")

#: The published protocol, as a configuration.
PRESET = Path("config/reference.yaml")

#: Options that change how fast a result comes, how it is logged or which draw it is, and not what is measured.
INDIFFERENT = frozenset(
    {"training.deterministic", "training.compile", "training.channels_last", "training.fused_optimizer"}
    | {
        "training.tf32",
        "training.micro_batch",
        "training.threads",
        "training.log_every",
        "training.save_every_seconds",
    }
    | {"training.global_batch", "sampling.batch", "sampling.draws", "sampling.seed", "metric.implementation"}
)


#: A variant that sets one of these follows another protocol than the study, and stands beside nothing published.
OTHER_PROTOCOL = frozenset({"network", *variants.SECTIONS})


def beside(study: Mapping[str, Any], summary: pd.DataFrame) -> dict[str, Any] | None:
    """Return the published numbers and ours at the scales that are the same networks.

    Args:
        study: the whole configuration.
        summary: of :func:`targetwise.report.statistics.summary`.

    Returns:
        ``scales``; ``ours`` and ``published``, a row each with ``values`` by scale (None where there is none);
        ``differences``, the options in which the protocols differ; ``sources``. None if the study measures something
        else: other data, another extractor or another reference set; or if it names samplings.
    """
    preset = configuration.load([PRESET])
    if study["grid"].get("samplings"):  # which of them to compare is nobody's choice
        return None
    if (study["data"]["dataset"], study["metric"]["extractor"], study["metric"]["reference"]) != (
        preset["data"]["dataset"],
        preset["metric"]["extractor"],
        preset["metric"]["reference"],
    ):
        return None
    numbers = pd.read_csv(NUMBERS)
    scales = [
        scale
        for scale in study["grid"]["scales"]
        if scale in set(numbers["scale"]) and _network(study, scale) == _network(preset, scale)
    ]
    if not scales:
        return None
    ours = [
        {"entry": name, "seeds": max(rows["seeds"], default=0), "values": _values(rows, "mean", scales)}
        for name in study["grid"]["parameterizations"]
        if not set(study["parameterizations"].get(name) or {}) & OTHER_PROTOCOL
        for rows in [summary[summary["parameterization"] == name]]
    ]
    published = []
    for named in numbers[["entry", "setting"]].drop_duplicates().to_dict("records"):
        rows = numbers[(numbers["entry"] == named["entry"]) & (numbers["setting"] == named["setting"])]
        published.append({**named, "note": _note(rows), "values": _values(rows, "fid", scales)})
    return {
        "scales": scales,
        "ours": ours,
        "published": [row for row in published if any(value is not None for value in row["values"])],
        "differences": _differences(study, preset, scales),
        "sources": sorted(set(numbers["source"])),
    }


def _values(rows: pd.DataFrame, column: str, scales: list[str]) -> list[float | None]:
    by_scale = rows.set_index("scale")[column]
    return [None if pd.isna(value := by_scale.get(scale)) else float(value) for scale in scales]


def _note(rows: pd.DataFrame) -> str:
    """Return what is said of an entry at every scale; what is said of one scale names it."""
    notes = rows[rows["note"].notna()]
    if len(notes) == len(rows) and len(set(notes["note"])) == 1:
        return str(notes["note"].iloc[0])
    return "; ".join(f"{scale}: {note}" for scale, note in zip(notes["scale"], notes["note"], strict=True))


def _network(study: Mapping[str, Any], scale: str) -> dict[str, Any]:
    return {key: value for key, value in study["scales"][scale].items() if key != "global_batch"}


def _differences(study: Mapping[str, Any], preset: Mapping[str, Any], scales: list[str]) -> list[dict[str, str]]:
    found: list[tuple[str, Any, Any]] = []
    for section in ("data", "diffusion", "training", "sampling", "metric"):
        for key, theirs in preset[section].items():
            if f"{section}.{key}" not in INDIFFERENT and study[section].get(key) != theirs:
                found.append((f"{section}.{key}", study[section].get(key), theirs))
    for scale in scales:
        mine, theirs = (
            each["scales"][scale].get("global_batch", each["training"]["global_batch"]) for each in (study, preset)
        )
        if mine != theirs:
            found.append((f"global batch at {scale}", mine, theirs))
    return [{"option": option, "ours": _said(mine), "theirs": _said(theirs)} for option, mine, theirs in found]


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
