"""Effects of factors: what changing one field does, with everything else as it was.

The variants of a study are combinations of levels of its factors, measured over shared seeds. What combination and
seed do not explain is the error. A term's share follows from comparing models with and without it, and an effect
compares two levels at the same levels of all other factors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, prod
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference.contrasts import RATIO, Fit, estimated, fit, sidak

#: What the level of a factor is called where a variant does not have the field.
NONE = "none"

TERM_COLUMNS = ["term", "df", "share", "f", "p_value"]
LEVEL_COLUMNS = ["factor", "level", "combinations", "ratio", "low", "high"]
EFFECT_COLUMNS = ["factor", "a", "b", "combinations", "ratio", "low", "high", "resolved"]
INTERACTION_COLUMNS = ["term", "a", "b", "c", "d", "combinations", "ratio", "low", "high", "resolved"]


@dataclass(frozen=True)
class Factors:
    """What the values say about factors.

    Attributes:
        terms: factors and interactions, a row for each that the design can tell: its degrees of freedom, the partial
            ``share`` of the sum of squares (its own beside the error's), ``f`` and ``p_value`` of type II.
        levels: each level's mean over the geometric mean of its factor's levels, where all were run together.
        effects: every two levels of a factor: ``ratio`` a/b of their means over the ``combinations`` of the other
            factors with which both were run, and its interval, which holds for all of a factor's pairs together.
        interactions: of every two factors: by which factor the ratio a/b is larger at level c than at level d.
        scale: ``ratio``, or ``difference`` if a value is not above 0: then all ratios are differences.
        deviation: of the error of y, a ratio's being nearly relative; NaN without degrees of freedom.
        df: of the error.
        notes: sentences about what is left out, and why.
    """

    terms: pd.DataFrame
    levels: pd.DataFrame
    effects: pd.DataFrame
    interactions: pd.DataFrame
    scale: str
    deviation: float
    df: int
    notes: list[str]


def factors(values: pd.DataFrame, names: Sequence[str]) -> Factors:
    """Return the effects of factors.

    Args:
        values: a row for each finished cell of what is compared: ``parameterization``, ``seed``, ``value`` and a
            column for each factor; see :func:`targetwise.inference.contrasts.cell_means`.
        names: of the columns that are factors. One that has a single level, or changes only together with others, is
            left out, and a note says so.

    Raises:
        UserError: if there is no such column, or the factors cannot tell two variants apart.
    """
    for name in names:
        if name not in values:
            raise UserError(f"'{name}' is no column of the table, so it can be no factor")
    levels = values.assign(**{name: [_level(value) for value in values[name]] for name in names})
    kept, notes = _usable(levels, names)
    if not kept:
        return _nothing(notes)
    _require_told_apart(levels, kept)
    points = list(levels[kept].itertuples(index=False, name=None))
    index = {point: str(place) for place, point in enumerate(dict.fromkeys(points))}
    fitted = fit([index[point] for point in points], levels["seed"].tolist(), levels["value"].tolist())
    design = _Design(kept, list(index), fitted)
    terms, untold = _terms(levels, kept, fitted)
    if not fitted.df:
        notes.append("With one value of each combination there is no error estimate, and so there are no intervals.")
    possible = prod(len(levels[name].unique()) for name in kept)
    if len(index) < possible:
        notes.append(
            f"{len(index)} of {possible} combinations have values: an effect is over those with both of its levels."
        )
    notes += untold
    return Factors(
        terms=terms,
        levels=design.levels(),
        effects=design.effects(),
        interactions=design.interactions(),
        scale=fitted.scale,
        deviation=fitted.deviation,
        df=fitted.df,
        notes=notes,
    )


def _level(value: Any) -> str:
    """Return how a level is written; a number that a table has made 3.0 of is 3."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NONE
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return f"{value:.12g}" if isinstance(value, int | float | np.number) else str(value)


def _usable(levels: pd.DataFrame, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the factors whose effect the finished cells can tell, and a sentence for each that they cannot."""
    kept, notes = list(names), []
    changed = True
    while changed:
        changed = False
        for name in kept:
            found = levels[name].unique()
            others = [other for other in kept if other != name]
            alone = levels.groupby(others, sort=False)[name].nunique() if others else pd.Series([len(found)])
            if len(found) < 2 or not (alone > 1).any():
                why = (
                    f"is {found[0] if len(found) else NONE} in every finished cell"
                    if len(found) < 2
                    else f"changes only together with {' or '.join(others)} in the finished cells"
                )
                notes.append(f"{name} {why}, so its effect cannot be told.")
                kept.remove(name)
                changed = True
                break
    return kept, notes


def _require_told_apart(levels: pd.DataFrame, names: list[str]) -> None:
    cells = levels[[*names, "seed"]].duplicated(keep=False)
    if cells.any():
        variants = levels.loc[cells, "parameterization"].unique()
        raise UserError(
            f"the factors {', '.join(names)} cannot tell {' and '.join(map(str, variants[:2]))} apart; name as a "
            "factor what they differ in, or leave one out"
        )


def _nothing(notes: list[str]) -> Factors:
    columns = TERM_COLUMNS, LEVEL_COLUMNS, EFFECT_COLUMNS, INTERACTION_COLUMNS
    terms, levels, effects, interactions = (pd.DataFrame(columns=each) for each in columns)
    return Factors(terms, levels, effects, interactions, RATIO, np.nan, 0, notes)


def _terms(levels: pd.DataFrame, names: list[str], fitted: Fit) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of factors and interactions by comparing models, and sentences about what it cannot hold.

    Type II: a term's sum of squares is what it explains beyond all terms that do not contain it. Ranks are counted,
    so that missing combinations cost degrees of freedom and nothing else.
    """
    data = pd.DataFrame({f"f{place}": levels[name] for place, name in enumerate(names)})
    data["y"] = np.log(levels["value"]) if fitted.scale == RATIO else levels["value"]
    data["seed"] = levels["seed"]
    every = [term for size in range(1, len(names) + 1) for term in combinations(range(len(names)), size)]
    fits: dict[tuple[tuple[int, ...], ...], Any] = {}

    def fit_of(terms: Sequence[tuple[int, ...]]) -> Any:
        key = tuple(terms)
        if key not in fits:
            parts = ["1"] + ["C(seed)"] * (len(set(data["seed"])) > 1)
            parts += [":".join(f"C(f{place})" for place in term) for term in key]
            fits[key] = estimated(smf.ols("y ~ " + " + ".join(parts), data))
        return fits[key]

    rows, untold = [], []
    for term in every:
        lower = [other for other in every if len(other) < len(term)]
        if round(float(fit_of(lower).df_resid)) == fitted.df:
            break  # these tell all combinations apart already
        without = [other for other in every if not set(term) <= set(other)]
        smaller, larger = fit_of(without), fit_of([*without, term])
        df = round(float(smaller.df_resid - larger.df_resid))
        name = " × ".join(names[place] for place in term)
        if df < 1:
            untold.append(name)
            continue
        own, error = max(float(smaller.ssr - larger.ssr), 0.0), fitted.sum_of_squares
        f = own / df / (error / fitted.df) if fitted.df and error else np.nan
        rows.append(
            {
                "term": name,
                "df": df,
                "share": own / (own + error) if fitted.df and own + error else np.nan,
                "f": f,
                "p_value": float(stats.f.sf(f, df, fitted.df)) if np.isfinite(f) else np.nan,
            }
        )
    told = f"The combinations that were run cannot tell these apart from other effects: {', '.join(untold)}."
    return pd.DataFrame(rows, columns=TERM_COLUMNS), [told] if untold else []


@dataclass(frozen=True)
class _Design:
    """The combinations that have values, and what can be compared within them."""

    names: list[str]
    combinations: list[tuple[str, ...]]
    fitted: Fit

    def _levels_of(self, place: int) -> list[str]:
        return list(dict.fromkeys(each[place] for each in self.combinations))

    def _matched(self, wanted: Sequence[dict[int, str]]) -> list[list[int]]:
        """Return, for each combination of the other factors that has them all, the places of the wanted levels."""
        place_of = {each: place for place, each in enumerate(self.combinations)}
        fixed = wanted[0].keys()
        rests = dict.fromkeys(
            tuple(None if place in fixed else level for place, level in enumerate(each)) for each in self.combinations
        )
        found = []
        for rest in rests:
            full = [tuple(want.get(place, level) for place, level in enumerate(rest)) for want in wanted]
            if all(each in place_of for each in full):
                found.append([place_of[each] for each in full])  # type: ignore[index]
        return found

    def _contrast(self, wanted: Sequence[dict[int, str]], signs: Sequence[float], critical: float) -> dict[str, Any]:
        matched = self._matched(wanted)
        weights = np.zeros(len(self.combinations))
        for places in matched:
            for place, sign in zip(places, signs, strict=True):
                weights[place] += sign / len(matched)
        if not matched:
            return {"combinations": 0, "ratio": np.nan, "low": np.nan, "high": np.nan}
        return {"combinations": len(matched), **self.fitted.contrast(weights, critical)}

    def effects(self) -> pd.DataFrame:
        rows = []
        for place, name in enumerate(self.names):
            own = self._levels_of(place)
            critical = self._critical(len(own))
            for a, b in combinations(own, 2):
                found = self._contrast([{place: a}, {place: b}], (1, -1), critical)
                rows.append({"factor": name, "a": a, "b": b, **found, "resolved": self._is_resolved(found)})
        return pd.DataFrame(rows, columns=EFFECT_COLUMNS)

    def levels(self) -> pd.DataFrame:
        rows = []
        for place, name in enumerate(self.names):
            own = self._levels_of(place)
            critical = sidak(len(own), self.fitted.df)
            for level in own:
                signs = [(level == other) - 1 / len(own) for other in own]
                found = self._contrast([{place: other} for other in own], signs, critical)
                rows.append({"factor": name, "level": level, **found})
        return pd.DataFrame(rows, columns=LEVEL_COLUMNS)

    def interactions(self) -> pd.DataFrame:
        rows = []
        for (first, one), (second, other) in combinations(enumerate(self.names), 2):
            across, down = self._levels_of(first), self._levels_of(second)
            critical = sidak(comb(len(across), 2) * comb(len(down), 2), self.fitted.df)
            for (a, b), (c, d) in _pairs(across, down):
                wanted = [{first: x, second: y} for x, y in ((a, c), (b, c), (a, d), (b, d))]
                found = self._contrast(wanted, (1, -1, -1, 1), critical)
                names = {"term": f"{one} × {other}", "a": a, "b": b, "c": c, "d": d}
                rows.append({**names, **found, "resolved": self._is_resolved(found)})
        table = pd.DataFrame(rows, columns=INTERACTION_COLUMNS)
        return table[table["combinations"] > 0].reset_index(drop=True)

    def _critical(self, count: int) -> float:
        """Return the critical value for all pairs of a factor's levels.

        Tukey's needs means of equally many independent values: every combination, with every seed.
        """
        complete = len(self.combinations) == prod(len(self._levels_of(place)) for place in range(len(self.names)))
        if complete:
            return self.fitted.pairwise_critical(count)
        return sidak(comb(count, 2), self.fitted.df)

    def _is_resolved(self, found: dict[str, Any]) -> bool:
        neutral = 1.0 if self.fitted.scale == RATIO else 0.0
        return bool(found["low"] > neutral or found["high"] < neutral)


def _pairs(across: list[str], down: list[str]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for first in combinations(across, 2):
        for second in combinations(down, 2):
            yield first, second
