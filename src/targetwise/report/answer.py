"""The study's answer in sentences, computed from the tables, never claiming more than they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from targetwise.inference.compare import Comparison
from targetwise.report import statistics
from targetwise.report.sentences import Relations, heading, in_words, of_setting
from targetwise.report.words import at, records
from targetwise.text import listed

#: At most so many are named as those of which one is the lowest.
CANDIDATES = 4

#: In the order in which the page says them.
HEADINGS = ("resolved", "equivalent", "not resolved", "too few seeds")


@dataclass(frozen=True)
class ScaleAnswer:
    """What the values in one setting, mostly a scale, say.

    ``winner`` is resolved below every other parameterization with values; where there is none, ``candidates`` are
    those that none is shown to be below, if that leaves any out. ``told`` has a sentence for each comparison under
    its heading.
    """

    scale: str
    sentence: str
    winner: str | None
    candidates: list[str]
    told: dict[str, list[str]]


@dataclass(frozen=True)
class Answer:
    """The page's first lines: one sentence, then one answer per scale, then what a reader must know."""

    headline: str
    scales: list[ScaleAnswer]
    cautions: list[str]
    diverged: list[str]
    missing: list[str]


def answer(
    states: pd.DataFrame,
    summary: pd.DataFrame,
    compared: Mapping[str, Comparison],
    frame: pd.DataFrame,
    config: Mapping[str, Any],
) -> Answer:
    """Return the answer of a study.

    Args:
        states: of :func:`cell_states`.
        summary: of :func:`targetwise.report.statistics.summary`.
        compared: of :func:`targetwise.report.statistics.compared`.
        frame: of :func:`targetwise.report.table.table`.
        config: the whole configuration; what it declares of comparisons is said.
    """
    metric, declared = metric_of(frame), config["comparison"]
    scales = [
        _of_scale(setting, summary[summary["setting"] == setting], compared[setting], metric, declared)
        for setting in frame["setting"].unique()
    ]
    finished = int((states["status"] == "finished").sum())
    headline = (
        scales[0].sentence
        if len(scales) == 1 or not summary["seeds"].any()
        else _over_settings(scales, metric, "scales" if frame["setting"].equals(frame["scale"]) else "settings")
    )
    if (states["status"] == "missing").any() and finished:
        headline = f"Provisional, with {finished} of {len(states)} cells finished. {headline}"
    return Answer(
        headline, scales, _cautions(states, compared, frame), _named(states, "diverged"), _named(states, "missing")
    )


def headline(config: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """Return the first sentence of the answer that a study's table gives."""
    compared = statistics.compared(frame, statistics.declared(config))
    return answer(cell_states(frame), statistics.summary(frame), compared, frame, config).headline


def metric_of(frame: pd.DataFrame) -> str:
    """Return what the rows of a table measure; until there is one, ``the metric``."""
    return str(next(iter(frame["metric"].dropna()), "the metric"))


def cell_states(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell: parameterization, scale, seed, ``status`` and ``reason``.

    A cell is finished if all its draws are; one draw that diverged makes it diverged, one that is missing, missing.
    """
    names = ["parameterization", "scale", "seed"]
    found: dict[Any, list[Any]] = {}
    for row in records(frame[[*names, "status", "reason"]]):
        found.setdefault(row[:3], []).append(row)
    rows = []
    for key, draws in found.items():
        states = {draw.status for draw in draws}
        status = next(state for state in ("diverged", "missing", "finished") if state in states)
        reasons = [draw.reason for draw in draws if draw.status == status and isinstance(draw.reason, str)]
        rows.append([*key, status, next(iter(reasons), None)])
    return pd.DataFrame(rows, columns=[*names, "status", "reason"])


def _of_scale(
    setting: str, summary: pd.DataFrame, comparison: Comparison, metric: str, declared: Mapping[str, Any]
) -> ScaleAnswer:
    measured = summary[summary["seeds"] > 0].sort_values("mean", kind="stable")
    names = list(measured["parameterization"])
    smallest = declared["smallest_difference"]
    told: dict[str, list[str]] = {each: [] for each in HEADINGS}
    among = comparison.pairs[comparison.pairs["a"].isin(names) & comparison.pairs["b"].isin(names)]
    for pair in records(among):
        told[heading(pair)].append(in_words(pair, comparison.scale, smallest))
    relations = Relations(among)
    winner = next(
        (one for one in names[:1] if len(names) > 1 and all(relations(one, other) == "below" for other in names[1:])),
        None,
    )
    candidates = relations.candidates(names) if winner is None and None not in relations.among(names) else []
    sentence = of_setting(measured, summary, among, relations, metric, declared)
    without = list(summary[summary["seeds"] == 0]["parameterization"])
    if len(names) > 1 and without:
        sentence += f" {listed(without)} {'has' if len(without) == 1 else 'have'} no value."
    few = candidates if len(candidates) < len(names) else []
    return ScaleAnswer(setting, sentence, winner, few, {kind: each for kind, each in told.items() if each})


def _over_settings(scales: Sequence[ScaleAnswer], metric: str, kind: str) -> str:
    won: dict[str, list[str]] = {}
    among: dict[str, list[str]] = {}
    undecided = []
    for scale in scales:
        if scale.winner:
            won.setdefault(scale.winner, []).append(scale.scale)
        elif 0 < len(scale.candidates) <= CANDIDATES:
            among.setdefault(listed(scale.candidates, "or"), []).append(scale.scale)
        else:
            undecided.append(scale.scale)
    if not won and not among:
        return f"No parameterization is shown to have the lowest {metric} at any of the {len(scales)} {kind}."
    if len(among) == 1 and not won and not undecided:
        which = "; it is not certain which" if scales[0].candidates[1:] else ""
        return f"The lowest {metric} is that of {next(iter(among))} at each of the {len(scales)} {kind}{which}."
    if len(won) == 1 and all(scale.winner for scale in scales):
        return (
            f"{next(iter(won))} gives the lowest {metric} at each of the {len(scales)} {kind}, and its differences "
            "from the others are resolved at each."
        )
    parts = [f"{name} gives the lowest {metric} {at(where)}" for name, where in won.items()]
    for names, where in among.items():
        parts.append(f"{at(where)}, {'it' if parts else f'the lowest {metric}'} is that of {names}")
    if undecided:
        parts.append(f"{at(undecided)}, no parameterization is shown to be the lowest")
    several = any(scale.candidates[1:] for scale in scales if scale.scale not in undecided)
    told = "; ".join(parts)
    told = f"The {kind} do not all agree: {told}." if won else f"{told[0].upper()}{told[1:]}."
    return f"{told} Where several are named, it is not certain which." if several else told


def _cautions(states: pd.DataFrame, compared: Mapping[str, Comparison], frame: pd.DataFrame) -> list[str]:
    cautions = []
    finished = frame[frame["status"] == "finished"]
    marks = [mark for text in finished["marks"] if isinstance(text, str) for mark in text.split("; ") if mark]
    for mark in dict.fromkeys(marks):
        cautions.append(f"Marked on {marks.count(mark)} of {len(finished)} values: {mark}.")
    if (states["status"] == "diverged").any():
        cautions.append("A parameterization that diverges is judged by the runs that went well.")
    judged: dict[str, list[str]] = {}
    for setting, comparison in compared.items():
        if comparison.method not in (None, "pooled"):
            judged.setdefault(comparison.why, []).append(setting)
    for why, where in judged.items():
        cautions.append(
            why if len(where) == len(compared) else f"{at(where).capitalize()}: {why[0].lower()}{why[1:]}"
        )
    seeds = [int(count) for each in compared.values() for count in each.pairs["seeds"][each.pairs["low"].notna()]]
    if seeds and min(seeds) < 5:
        few = min(seeds) if min(seeds) == max(seeds) else f"as few as {min(seeds)}"
        cautions.append(
            f"With {few} seeds an interval is wide: only differences that are large compared with the scatter can "
            "be resolved."
        )
    return cautions


def _named(states: pd.DataFrame, status: str) -> list[str]:
    return [
        f"{row.parameterization}-{row.scale}-{row.seed}{f': {row.reason}' if row.reason else ''}"
        for row in records(states[states["status"] == status])
    ]
