"""Comparisons in words: one by itself, and all of a setting in a sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from targetwise.report.words import CERTAINTY, number, percent, records, signed, some
from targetwise.text import counted

#: Of the interval that two one-sided tests at 5 % look at.
EQUIVALENCE_CERTAINTY = "90 %"

#: From this ratio on a difference is said as a factor: a percentage would be 90 to 100 for all of them.
FACTOR = 10


def in_words(pair: Any, scale: str, smallest: float | None) -> str:
    """Return the sentence of a comparison.

    Args:
        pair: a row of :attr:`targetwise.inference.compare.Comparison.pairs`.
        scale: ``ratio``, or ``difference`` where a value is not positive.
        smallest: the smallest difference of interest, as a ratio minus one.
    """
    if pair.verdict == "too few seeds":
        return f"{_value(pair, scale)} {_why_none(pair)}"
    seeds = counted(pair.seeds, "seed")
    if pair.verdict == "equivalent":
        assert smallest is not None  # without it, nothing is called equivalent
        text = (
            f"{pair.a} and {pair.b} are equivalent within {percent(smallest)}: their ratio is "
            f"{_ratio(pair.ratio)} ({EQUIVALENCE_CERTAINTY} interval {_ratio(pair.equivalence_low)} to "
            f"{_ratio(pair.equivalence_high)}, {seeds})"
        )
        return f"{text}; that {lower_of(pair)} is lower is resolved" if pair.resolved else text
    if pair.verdict in ("better", "worse"):
        return _resolved(pair, scale, seeds)
    text = f"{_value(pair, scale)} ({CERTAINTY} interval {_interval(pair, scale)}, {seeds})"
    if scale == "ratio" and math.isfinite(pair.resolvable):
        least = f"by a factor of {number(pair.resolvable)}" if pair.resolvable > FACTOR else ""
        least = least or f"of {percent(pair.resolvable - 1)}"
        text += f"; differences {least} or more would usually have been resolved"
    if pair.seeds < pair.seeds_needed < math.inf:
        text += f"; to resolve one of this size would take about {pair.seeds_needed:,.0f} seeds"
    return text


def heading(pair: Any) -> str:
    """Return the verdict, without which of the two it favours: ``resolved`` for better and worse."""
    return "resolved" if pair.verdict in ("better", "worse") else str(pair.verdict)


def lower_of(pair: Any) -> str:
    """Return the name of the one whose value is the lower."""
    return str(pair.a if pair.verdict == "better" or (pair.verdict != "worse" and pair.ratio < 1) else pair.b)


def _resolved(pair: Any, scale: str, seeds: str) -> str:
    lower, higher = (pair.a, pair.b) if pair.verdict == "better" else (pair.b, pair.a)
    if scale == "difference":
        low, high = sorted((abs(pair.low), abs(pair.high)))
        by, least, most = number(abs(pair.ratio)), number(low), number(high)
    else:
        ratios = [pair.ratio, pair.low, pair.high]
        if pair.verdict == "worse":
            ratios = [1 / pair.ratio, 1 / pair.high, 1 / pair.low]
        if ratios[0] * FACTOR < 1:
            by, most, least = (number(1 / ratio) for ratio in ratios)
            by = f"a factor of {by}"
        else:
            by, most, least = (percent(1 - ratio) for ratio in ratios)
    return f"{lower} is below {higher} by {by} ({CERTAINTY} interval {least} to {most}, {seeds})"


def _value(pair: Any, scale: str) -> str:
    if scale == "difference":
        return f"{pair.a} − {pair.b} = {signed(pair.ratio)}" if math.isfinite(pair.ratio) else f"{pair.a} − {pair.b}"
    return f"{pair.a} / {pair.b} = {_ratio(pair.ratio)}" if math.isfinite(pair.ratio) else f"{pair.a} / {pair.b}"


def _interval(pair: Any, scale: str) -> str:
    return " to ".join(signed(edge) if scale == "difference" else _ratio(edge) for edge in (pair.low, pair.high))


def _ratio(value: float) -> str:
    return f"{value:.3f}" if 0.9 < value < 1.1 else number(value)


def _why_none(pair: Any) -> str:
    if pair.seeds == 0:
        return "(no seed in common)"
    return "(one seed in common, so no interval)" if pair.seeds == 1 else "(no estimate of the scatter)"


class Relations:
    """What is known of any two: ``below``, ``above``, ``equivalent``, ``not resolved``, ``too few seeds`` or None."""

    def __init__(self, pairs: pd.DataFrame) -> None:
        """Take the rows of :attr:`targetwise.inference.compare.Comparison.pairs`."""
        self.found: dict[tuple[str, str], str] = {}
        for pair in records(pairs):
            there, back = {"better": ("below", "above"), "worse": ("above", "below")}.get(
                pair.verdict, (pair.verdict, pair.verdict)
            )
            self.found[pair.a, pair.b], self.found[pair.b, pair.a] = there, back

    def __call__(self, one: str, other: str) -> str | None:
        """Return how ``one`` stands to ``other``."""
        return self.found.get((one, other))

    def candidates(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names``, of which every two are compared, that no other one is shown to be below.

        The intervals of all pairs hold at once, and with their confidence the truly lowest one is among these.
        """
        return [name for name in names if not any(self(other, name) == "below" for other in names)]

    def among(self, names: Sequence[str]) -> list[str | None]:
        """Return how each of ``names`` stands to each later one."""
        return [self(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]


def of_setting(
    measured: pd.DataFrame,
    summary: pd.DataFrame,
    pairs: pd.DataFrame,
    relations: Relations,
    metric: str,
    declared: Mapping[str, Any],
) -> str:
    """Return the sentence of a setting.

    Args:
        measured: rows of ``summary`` that have a value, lowest first.
        summary: of :func:`targetwise.report.statistics.summary`.
        pairs: the comparisons of those with values.
        relations: the same.
        metric: what the rows measure.
        declared: the configuration's ``comparison``.
    """
    names = list(measured["parameterization"])
    if not names:
        return "There is no answer, because no parameterization has a value."
    ranked = {row.parameterization: f"{row.parameterization} ({number(row.mean)})" for row in records(measured)}
    if len(names) == 1:
        why = "nothing else is in the grid" if len(summary) == 1 else "nothing else has a value"
        return f"Only {ranked[names[0]]} was measured; {why}, so there is nothing to compare it with."
    if set(pairs["verdict"]) <= {"too few seeds"}:
        only = "there is only one seed" if measured["seeds"].max() == 1 else "no two share two finished seeds"
        ranking = some(list(ranked.values()), "more")
        return (
            f"Whether any difference is real cannot be said, because {only}. Lowest first, the {metric} is {ranking}."
        )
    if None not in relations.among(names):
        return _all_pairs(names, ranked, relations, metric, declared, summary, pairs)
    if declared["baseline"] in names:
        return _against(declared["baseline"], names, ranked, relations, metric, declared)
    sentences = []
    for family, members in (declared["families"] or {}).items():
        here = {name: ranked[name] for name in names if name in members}
        if len(here) > 1:
            words = _all_pairs(list(here), here, relations, metric, declared, summary, pairs)
            sentences.append(f"Among {family}: {words}")
    return " ".join(sentences) or f"Nothing that was measured is compared: {some(list(ranked.values()), 'more')}."


def _all_pairs(
    names: Sequence[str],
    ranked: Mapping[str, str],
    relations: Relations,
    metric: str,
    declared: Mapping[str, Any],
    summary: pd.DataFrame,
    pairs: pd.DataFrame,
) -> str:
    """Return what is lowest among ``names``, lowest first, of which every two are compared."""
    ranking = some(list(ranked.values()), "more")
    for count in range(1, len(names) + 1):
        leaders, others = names[:count], names[count:]
        if set(relations.among(leaders)) <= {"equivalent"} and all(
            relations(one, other) == "below" for one in leaders for other in others
        ):
            return _led_by(leaders, others, ranked, metric, declared, summary, pairs)
    if set(relations.among(names)) <= {"too few seeds", "not resolved"}:
        none = 1 if (pairs["ratio"] > 0).all() else 0
        return (
            f"No difference in {metric} is resolved: every interval includes {none}, which does not show that they "
            f"are equal. Lowest first, the means are {ranking}."
        )
    candidates = relations.candidates(names)
    if len(candidates) == len(names):
        return (
            f"No parameterization is shown to have the lowest {metric}: some are equivalent, and how the others "
            f"differ is not resolved. Lowest first, the means are {ranking}."
        )
    excluded = len(names) - len(candidates)
    rest = "other one is" if excluded == 1 else f"other {excluded} are each"
    by_these = all(
        any(relations(one, name) == "below" for one in candidates) for name in names if name not in candidates
    )
    than = "at least one of these" if by_these and len(candidates) > 1 else "it" if by_these else "another"
    if len(candidates) == 1:
        return f"{ranked[names[0]]} gives the lowest {metric}: the {rest} shown to be higher than {than}."
    return (
        f"The lowest {metric} is that of {some([ranked[name] for name in candidates], last='or')}: which of them is "
        f"not certain. The {rest} shown to be higher than {than}."
    )


def _led_by(
    leaders: Sequence[str],
    others: Sequence[str],
    ranked: Mapping[str, str],
    metric: str,
    declared: Mapping[str, Any],
    summary: pd.DataFrame,
    pairs: pd.DataFrame,
) -> str:
    best, rest = some([ranked[name] for name in leaders]), some([ranked[name] for name in others] or [""])
    if not others:
        within = "are" if len(leaders) == 2 else "are all"
        return f"{best} {within} equivalent in {metric} within {percent(declared['smallest_difference'])}."
    if len(leaders) > 1:
        return (
            f"{best} give the lowest {metric}: they are equivalent within "
            f"{percent(declared['smallest_difference'])}, and their differences from {rest} are resolved."
        )
    (winner,) = leaders
    seeds = pairs[(pairs["a"] == winner) | (pairs["b"] == winner)]["seeds"]
    over = counted(seeds.min(), "seed") if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()} seeds"
    text = f"{best} gives the lowest {metric}, and its differences from {rest} are resolved over {over}"
    if len(others) == 1:
        text = f"{best} gives a lower {metric} than {rest}, and the difference is resolved over {over}"
    row = summary[summary["parameterization"] == winner].iloc[0]
    if row.diverged:
        text += f"; but {row.diverged} of its {counted(row.seeds + row.diverged + row.missing, 'seed')} diverged"
    return text + "."


def _against(
    baseline: str,
    names: Sequence[str],
    ranked: Mapping[str, str],
    relations: Relations,
    metric: str,
    declared: Mapping[str, Any],
) -> str:
    kinds = {"below": "lower", "equivalent": "", "not resolved": "not shown to differ", "above": "higher"}
    if declared["smallest_difference"] is not None:
        kinds["equivalent"] = f"equivalent within {percent(declared['smallest_difference'])}"
    kinds["too few seeds"] = "not comparable for want of seeds"
    parts = []
    for kind, words in kinds.items():
        those = [ranked[name] for name in names if name != baseline and relations(name, baseline) == kind]
        if those:
            parts.append(f"{words} with {some(those)}")
    told = f"Compared with the baseline {ranked[baseline]}, {metric} is {'; '.join(parts)}."
    others = [name for name in names if name != baseline]
    if len(others) < 2:
        return told
    return (
        f"{told} The others were not compared with each other: that {ranked[names[0]]} has the lowest mean is not a "
        "verdict."
    )
