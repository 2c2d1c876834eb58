"""The study's answer in sentences, computed from the tables, never claiming more than they hold."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from targetwise.report import statistics
from targetwise.report.statistics import CONFIDENCE
from targetwise.text import counted

CERTAINTY = f"{CONFIDENCE:.0%}".replace("%", " %")


@dataclass(frozen=True)
class ScaleAnswer:
    """What the values in one setting, mostly a scale, say.

    ``winner`` is resolved below every other parameterization with values.
    """

    scale: str
    sentence: str
    winner: str | None
    resolved: list[str]
    unresolved: list[str]


@dataclass(frozen=True)
class Answer:
    """The page's first lines: one sentence, then one answer per scale, then what a reader must know."""

    headline: str
    scales: list[ScaleAnswer]
    cautions: list[str]
    diverged: list[str]
    missing: list[str]


def answer(
    states: pd.DataFrame, summary: pd.DataFrame, pairs: pd.DataFrame, frame: pd.DataFrame, metric: str
) -> Answer:
    """Return the answer of a study.

    Args:
        states: of :func:`cell_states`.
        summary: of :func:`targetwise.report.statistics.summary`.
        pairs: of :func:`targetwise.report.statistics.pairs`.
        frame: of :func:`targetwise.report.statistics.table`.
        metric: what the rows measure.
    """
    scales = [
        _of_scale(setting, summary[summary["setting"] == setting], pairs[pairs["setting"] == setting], metric)
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
        headline, scales, _cautions(states, pairs, frame), _named(states, "diverged"), _named(states, "missing")
    )


def headline(frame: pd.DataFrame) -> str:
    """Return the first sentence of the answer that a table gives."""
    summary, pairs = statistics.summary(frame), statistics.pairs(frame)
    return answer(cell_states(frame), summary, pairs, frame, metric_of(frame)).headline


def metric_of(frame: pd.DataFrame) -> str:
    """Return what the rows of a table measure; until there is one, ``the metric``."""
    return str(next(iter(frame["metric"].dropna()), "the metric"))


def cell_states(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell: parameterization, scale, seed, ``status`` and ``reason``.

    A cell is finished if all its draws are; one draw that diverged makes it diverged, one that is missing, missing.
    """
    rows = []
    for (parameterization, scale, seed), draws in frame.groupby(["parameterization", "scale", "seed"], sort=False):
        status = next(state for state in ("diverged", "missing", "finished") if state in set(draws["status"]))
        reasons = [str(reason) for reason in draws[draws["status"] == status]["reason"] if isinstance(reason, str)]
        rows.append(
            {
                "parameterization": parameterization,
                "scale": scale,
                "seed": seed,
                "status": status,
                "reason": reasons[0] if reasons else None,
            }
        )
    return pd.DataFrame(rows)


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows as named tuples."""
    return iter(frame.itertuples(index=False))


def number(value: float | None) -> str:
    """Return a value as the page writes it, e.g. ``1,853``, ``44.73`` or ``0.0021``; nothing known is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2
    text = f"{value:.2g}" if 0 < size < 0.1 else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Return a difference with its sign, e.g. ``+1.20``."""
    return ("+" if value > 0 else "") + number(value)


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return e.g. ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _of_scale(scale: str, summary: pd.DataFrame, pairs: pd.DataFrame, metric: str) -> ScaleAnswer:
    measured = summary[summary["seeds"] > 0].sort_values("mean", kind="stable")
    names = list(measured["parameterization"])
    among = pairs[pairs["a"].isin(names) & pairs["b"].isin(names)]
    resolved = [_lower(pair) for pair in records(among) if pair.verdict in (pair.a, pair.b)]
    unresolved = [_open(pair) for pair in records(among) if pair.verdict not in (pair.a, pair.b)]
    winner = next(
        (name for name in names if len(names) > 1 and (among["verdict"] == name).sum() == len(names) - 1), None
    )
    sentence = _sentence(measured, summary, among, winner, metric)
    without = list(summary[summary["seeds"] == 0]["parameterization"])
    if len(names) > 1 and without:
        sentence += f" {listed(without)} {'has' if len(without) == 1 else 'have'} no value."
    return ScaleAnswer(scale, sentence, winner, resolved, unresolved)


def _sentence(
    measured: pd.DataFrame, summary: pd.DataFrame, pairs: pd.DataFrame, winner: str | None, metric: str
) -> str:
    names = list(measured["parameterization"])
    if not names:
        return "There is no answer, because no parameterization has a value."
    ranked = [f"{row.parameterization} ({number(row.mean)})" for row in records(measured)]
    ranking = listed(ranked)
    if len(names) == 1:
        why = "nothing else is in the grid" if len(summary) == 1 else "nothing else has a value"
        return f"Only {ranking} was measured; {why}, so there is nothing to compare it with."
    if winner:
        seeds = pairs[(pairs["a"] == winner) | (pairs["b"] == winner)]["seeds"]
        over = counted(seeds.min(), "seed") if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()} seeds"
        best, others = (
            ranked[names.index(winner)],
            [text for name, text in zip(names, ranked, strict=True) if name != winner],
        )
        text = f"{best} gives the lowest {metric}, and its differences from {listed(others)} are resolved over {over}"
        if len(others) == 1:
            text = f"{best} gives a lower {metric} than {others[0]}, and the difference is resolved over {over}"
        row = summary[summary["parameterization"] == winner].iloc[0]
        if row.diverged:
            text += f"; but {row.diverged} of its {counted(row.seeds + row.diverged + row.missing, 'seed')} diverged"
        return text + "."
    verdicts = set(pairs["verdict"])
    if verdicts == {"too few seeds"}:
        only = "there is only one seed" if measured["seeds"].max() == 1 else "no two share two finished seeds"
        return (
            f"Whether any difference is real cannot be said, because {only}. Lowest first, the {metric} is {ranking}."
        )
    if verdicts <= {"too few seeds", "not resolved"}:
        return (
            f"No difference in {metric} is resolved: every interval includes 0, which does not show that they are "
            f"equal. Lowest first, the means are {ranking}."
        )
    return (
        f"No parameterization is shown to have the lowest {metric}: some differences are resolved, others are not. "
        f"Lowest first, the means are {ranking}."
    )


def _over_settings(scales: Sequence[ScaleAnswer], metric: str, kind: str) -> str:
    won: dict[str, list[str]] = {}
    for scale in scales:
        if scale.winner:
            won.setdefault(scale.winner, []).append(scale.scale)
    if not won:
        return f"No parameterization is shown to have the lowest {metric} at any of the {len(scales)} {kind}."
    if len(won) == 1 and all(scale.winner for scale in scales):
        return (
            f"{next(iter(won))} gives the lowest {metric} at each of the {len(scales)} {kind}, and its differences "
            "from the others are resolved at each."
        )
    parts = [f"{name} gives the lowest {metric} at {listed(at)}" for name, at in won.items()]
    undecided = [scale.scale for scale in scales if not scale.winner]
    if undecided:
        parts.append(f"at {listed(undecided)} no parameterization is shown to be the lowest")
    return f"The {kind} do not all agree: {'; '.join(parts)}."


def _lower(pair: Any) -> str:
    lower, higher = (pair.a, pair.b) if pair.verdict == pair.a else (pair.b, pair.a)
    low, high = sorted((abs(pair.low), abs(pair.high)))
    return (
        f"{lower} is below {higher} by {number(abs(pair.difference))} "
        f"({CERTAINTY} interval {number(low)} to {number(high)}, {counted(pair.seeds, 'seed')})"
    )


def _open(pair: Any) -> str:
    what = f"{pair.a} − {pair.b}"
    if pair.seeds == 0:
        return f"{what} (no seed in common)"
    if pair.verdict == "too few seeds":
        return f"{what} = {signed(pair.difference)} (one seed in common, so no interval)"
    return (
        f"{what} = {signed(pair.difference)} "
        f"({CERTAINTY} interval {signed(pair.low)} to {signed(pair.high)}, {counted(pair.seeds, 'seed')})"
    )


def _cautions(states: pd.DataFrame, pairs: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    cautions = []
    finished = frame[frame["status"] == "finished"]
    marks = [mark for text in finished["marks"] if isinstance(text, str) for mark in text.split("; ") if mark]
    for mark in dict.fromkeys(marks):
        cautions.append(f"Marked on {marks.count(mark)} of {len(finished)} values: {mark}.")
    if (states["status"] == "diverged").any():
        cautions.append(
            "Differences use only the seeds in which both finished, so a parameterization that diverges is judged by "
            "the runs that went well."
        )
    intervals = int(pairs["low"].notna().sum())
    if intervals:
        fewest, most = (int(edge) for edge in pairs[pairs["low"].notna()]["seeds"].agg(["min", "max"]))
        if fewest < 5:
            few = fewest if fewest == most else f"as few as {fewest}"
            cautions.append(
                f"With {few} seeds an interval is wide: only differences that are large against the scatter can "
                "be resolved."
            )
    if intervals > 1:
        cautions.append(
            f"Each of the {intervals} intervals is at {CERTAINTY} by itself: of equal pairs, one in 20 looks "
            "resolved by chance."
        )
    return cautions


def _named(states: pd.DataFrame, status: str) -> list[str]:
    return [
        f"{row.parameterization}-{row.scale}-{row.seed}{f': {row.reason}' if row.reason else ''}"
        for row in records(states[states["status"] == status])
    ]
