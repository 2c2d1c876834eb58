"""The report: one page that answers the study's question and opens without a network."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from targetwise import cells
from targetwise.cells import Cell
from targetwise.cells.agreement import Agreement
from targetwise.diffusion.effective import SAME, Profile, alike, is_same, same_objectives
from targetwise.files import read_json
from targetwise.inference.curves import Curve
from targetwise.inference.quantiles import CONFIDENCE
from targetwise.metric.measures import title
from targetwise.recipe import variants
from targetwise.report import (
    claims,
    curve_charts,
    effects,
    explorer,
    interval_charts,
    looks,
    panels,
    papers,
    published,
    samples,
    statistics,
    templates,
    training_charts,
    vega,
)
from targetwise.report.answer import answer, cell_states, metric_of
from targetwise.report.budget import budget
from targetwise.report.heat_maps import heat_maps
from targetwise.report.origins import bounds, origins
from targetwise.report.table import column_of, table
from targetwise.report.words import CERTAINTY, number, percent, probability, signed, some, spoken
from targetwise.text import counted, listed

#: What the page does, in this order one script.
SCRIPTS = tuple(templates.FOLDER / name for name in ("figures.js", "questions.js", "page.js"))

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: Of a study, beside its page.
FILES = (
    "table.csv",
    "comparisons.csv",
    "pairs.csv",
    "effects.csv",
    "curves.csv",
    "claims.csv",
    "table.tex",
    "study.json",
)


def render(config: Mapping[str, Any], folder: Path) -> str:
    """Return the page of a study, from its files; what is not there yet is named as missing.

    Args:
        config: the content of ``study.json``.
        folder: where the page will be; its links to the study's files are relative to it.

    Returns:
        HTML that loads nothing. The same files give the same text.

    Raises:
        UserError: if a file is damaged, or rows are not comparable.
    """
    environment = templates.environment()
    environment.filters.update(number=number, listed=listed, percent=percent, signed=signed, spoken=spoken)
    environment.filters.update(duration=duration, needed=needed, probability=probability, some=some, tiny=tiny)
    environment.globals["counted"] = counted
    return environment.get_template("report.html.j2").render(_content(config, folder))


def duration(seconds: float) -> str:
    """Return e.g. ``41 s``, ``15 min 3 s`` or ``7 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def needed(seeds: float) -> str:
    """Return a number of seeds that a table asks for, e.g. ``14`` or ``over 1,000``; nothing known is a dash."""
    return "over 1,000" if math.isinf(seeds) else "–" if math.isnan(seeds) else f"{seeds:,.0f}"


def tiny(value: float) -> str:
    """Return an error as the page writes it: ``0``, ``0.02`` or ``4.2 × 10⁻¹⁴``."""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.2g}"
    mantissa, power = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(power)).translate(SUPERSCRIPTS)}"


def _content(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    frame = table(config)
    summary, pairs, states = statistics.summary(frame), statistics.pairs(frame), cell_states(frame)
    compared, spread = statistics.compared(frame, statistics.declared(config)), statistics.spread(frame)
    metric = metric_of(frame)
    own = _own_settings(frame)
    titles = {name: title(name, config["metric"]["extractor"]) for name in config["metric"]["names"]}
    study = cells.RESULTS / config["study"]
    logs = panels.training_logs(config)
    factors, smallest = effects.of_factors(frame, config), config["comparison"]["smallest_difference"]
    limits, agreement, real = bounds(config, study), Agreement(config), samples.real_images(config)
    return {
        "config": config,
        "metric": metric,
        "certainty": CERTAINTY,
        "confidence": CONFIDENCE,
        "order": config["grid"]["parameterizations"],
        "answer": answer(states, summary, compared, frame, config),
        "looks": looks.summary(study, config),
        "budget": budget(config),
        "finished": int((states["status"] == "finished").sum()),
        "cells": _cells(config, frame, folder),
        "titles": titles,
        "definitions": _definitions(config, own),
        "others": {column_of(name): each for name, each in titles.items() if name != config["metric"]["names"][0]},
        "floor": limits["floor"]["value"] if "floor" in limits else None,
        "exact": limits["exact"]["value"] if "exact" in limits else None,
        "ceilings": [row["value"] for key, row in limits.items() if isinstance(key, tuple)],
        "scales": [
            {
                **panels.of_setting(
                    agreement, frame[frame["setting"] == setting], summary, pairs, comparison, limits
                ),
                "spread": spread.get(setting),
            }
            for setting, comparison in compared.items()
        ],
        "trainings": [panels.of_training(config, scale, logs) for scale in config["grid"]["scales"]],
        "claims": claims.table(config, frame).to_dict("records"),
        "factors": factors,
        "effects": {
            where: interval_charts.effects(found, smallest, metric, where) for where, found in factors.items()
        },
        "listed_at_most": panels.LISTED,
        "maps": heat_maps(frame, metric),
        "curves": _curves(effects.of_axes(frame, config), metric),
        "published": published.beside(config, summary.drop_duplicates(["scale", "parameterization"])),
        "papers": papers.beside(config, summary),
        "samples": samples.columns(agreement, frame, real),
        "courses": samples.courses(config, frame),
        "latents": samples.latents(frame),
        "real": [] if real is None else samples.real_column(real, samples.latents(frame)),
        "checks": _checks(config, own, study),
        "origins": origins(config),
        "explorer": vega.as_json(explorer.content(config, frame, folder, logs)),
        "vega_config": vega.as_json(vega.COMMON),
        "drawing": vega.bundle(),
        "script": Markup("\n".join(path.read_text() for path in SCRIPTS)),  # noqa: S704 (our own)
        "specification": study / "study.json",
        "files": {name: os.path.relpath(study / name, folder) for name in FILES},
    }


def _curves(found: Sequence[Curve], metric: str) -> list[dict[str, Any]]:
    """Return the curves by axis, with their figure and a sentence for each."""
    by_axis: dict[str, list[Curve]] = {}
    for curve in found:
        if len(curve.points):
            by_axis.setdefault(curve.axis, []).append(curve)
    return [
        {
            "axis": axis,
            "figure": curve_charts.over_axis(each, metric),
            "geometric": each[0].scale == "ratio",
            "told": [_told(curve) for curve in each],
        }
        for axis, each in by_axis.items()
    ]


def _told(curve: Curve) -> str:
    where = f"with {effects.named(curve.group)}, " if curve.group else ""
    others = [_round(x) for x in curve.candidates if x != curve.best]
    text = f"{where}the lowest is at {_round(curve.best)}"
    text += f"; {listed(others)} {'is' if len(others) == 1 else 'are'} not resolved from it" if others else ""
    if curve.lacking:
        text += f"; nothing finished at {listed([_round(x) for x in curve.lacking])}"
    if curve.best in (curve.points["x"].min(), curve.points["x"].max()):
        return f"{text}. That is where the values end, so a lower one may lie beyond."
    if curve.optimum:
        text += f". {curve.optimum.why}"
        if math.isfinite(curve.optimum.x):
            of = curve.optimum
            text = f"{text[:-1]}: {_round(of.x)} ({CERTAINTY} interval {_round(of.low)} to {_round(of.high)})"
    return text.rstrip(".") + "."


def _round(x: float) -> str:
    """Return a place on an axis with three digits or more, e.g. ``2,500`` or ``0.0002``."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def _cells(config: Mapping[str, Any], frame: pd.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """Return the grid's rows, one per cell and draw, with the path of the cell's manifest."""
    listing: list[dict[str, Any]] = []
    study = cells.RESULTS / config["study"] / "study.json"
    for row in frame.to_dict("records"):
        cell = Cell(config["study"], row["parameterization"], row["scale"], row["seed"])
        manifest = cell.folder / "manifest.json"
        present = manifest.exists()
        listing.append(
            {
                **{str(key): None if pd.isna(value) else value for key, value in row.items()},
                "name": cell.name,
                "manifest": str(manifest) if present else None,
                "link": os.path.relpath(manifest, folder) if present else None,
                "again": f"targetwise reproduce cell@{cell.name} --configfile {study}" if present else None,
            }
        )
    return listing


def _checks(config: Mapping[str, Any], own: Mapping[str, Mapping[str, str]], study: Path) -> dict[str, Any]:
    order = config["grid"]["parameterizations"]
    found = {name: read_json(path) for name in order if (path := study / name / "check.json").exists()}
    curves = {name: check["curve"] for name, check in found.items()}
    # Empty where it is learned.
    objectives = {
        name: check["objective"] for name, check in found.items() if check.get("objective", {}).get("log_snr")
    }
    precisions = list(dict.fromkeys(precision for check in found.values() for precision in check["round_trip"]))

    def drawn(of: Mapping[str, Any], is_same: Any, place: str, along: str, quantity: str, label: str) -> Any:
        known = {name: (each[place], each[quantity]) for name, each in of.items()}
        return training_charts.of_check(known, alike(of, is_same), label, along) if known else None

    def is_same_gain(one: Profile, other: Profile) -> bool:
        return one["t"] == other["t"] and np.allclose(one["gain_to_x0"], other["gain_to_x0"], rtol=SAME, atol=0)

    return {
        "rows": [{"name": name, "settings": own[name], **check} for name, check in found.items()],
        "fields": list(next(iter(own.values()))),
        "precisions": [name for name in ("fp64", "fp32", "bf16", "fp16") if name in precisions],
        "missing": [name for name in order if name not in found],
        "gain": drawn(curves, is_same_gain, "t", "time step t", "gain_to_x0", "gain from output to x0"),
        "weight": drawn(objectives, is_same, "log_snr", "log-SNR λ", "effective_weight", "effective weight"),
        "same": same_objectives(objectives),
    }


def _definitions(config: Mapping[str, Any], own: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return what each variant is: its output and objective, and in what else it differs; none where names say it."""
    found = {}
    for name in config["grid"]["parameterizations"]:
        defined = variants.defined(config, name)
        said = {"target": defined["target"], "loss_space": defined["loss_space"], "weighting": defined["weighting"]}
        said = {field: value for field, value in said.items() if value != "constant"}
        found[name] = effects.named({**said, **own[name]})
    if all(text == f"target {name}" for name, text in found.items()):
        return {}
    return {
        name: text.replace("target ", "predicts ").replace("loss_space ", "loss in ") for name, text in found.items()
    }


def _own_settings(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return for each variant its fields in which variants differ, beside those that a check has itself."""
    fields = [field for field in frame.attrs["fields"] if field not in ("target", "loss_space", "weighting")]
    rows = frame.groupby("parameterization", sort=False)
    texts = {field: rows[field].agg(lambda here: ", ".join(dict.fromkeys(map(_said, here)))) for field in fields}
    varied = {field: each for field, each in texts.items() if len(set(each)) > 1}
    return {
        name: {field: each[name] for field, each in varied.items()} for name in frame["parameterization"].unique()
    }


def _said(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)
