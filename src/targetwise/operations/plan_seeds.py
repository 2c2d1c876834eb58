"""How many seeds a study needs, from the spread that is known, and what those cost that it lacks.

It tells how values scatter and never which are lower, so asking for it is no look at the values (report/looks.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference import power
from targetwise.inference.contrasts import RATIO, cell_means, fit
from targetwise.operations import estimate as estimating
from targetwise.operations import rates
from targetwise.text import aligned, counted

#: Of the interval of the spread, whose ends say how sure the numbers of seeds are.
CONFIDENCE = 0.90

#: So many times as many samples are considered.
MORE_SAMPLES = 4


@dataclass(frozen=True)
class Spread:
    """The residual deviation of ln(value) in one setting.

    Attributes:
        deviation: what is left between variants once what a seed does to all of them is taken out.
        low: lower end of its 90 % interval; the deviation itself where it is assumed.
        high: the upper end.
        samples: the share of the variance that is of finite samples, at most; None where that is not known.
    """

    deviation: float
    low: float
    high: float
    samples: float | None = None


@dataclass(frozen=True)
class Comparisons:
    """How variants are compared: so many, with a baseline or each with each."""

    variants: int
    baseline: bool

    def to_resolve(self, ratio: float, deviation: float) -> int | None:
        """Return the seeds that resolve a true ratio with 80 % power; None if over :data:`power.MOST_SEEDS`."""
        return power.seeds_to_resolve(ratio, deviation, self.variants, self.baseline)

    def to_show_equivalence(self, ratio: float, deviation: float) -> int | None:
        """Return the seeds that show equal variants equivalent within a ratio; see :meth:`to_resolve`."""
        return power.seeds_to_show_equivalence(ratio, deviation, self.variants, self.baseline)


def plan(
    config: Mapping[str, Any],
    frame: pd.DataFrame,
    *,
    difference: float | None = None,
    deviation: float | None = None,
    record: Path | None = None,
) -> list[str]:
    """Return in lines the seeds that resolve a difference and that show equivalence, and the hours they cost.

    Args:
        config: the whole configuration.
        frame: its table, for the spread and for what is trained already.
        difference: a ratio minus one; by default the smallest difference of interest.
        deviation: of ln(value), to assume instead of what the table shows.
        record: the benchmark record for the hours; by default the newest.

    Raises:
        UserError: if the difference or the spread is known from nowhere, or makes no sense.
    """
    difference = _difference(config, difference)
    if deviation is not None and not 0 < deviation < np.inf:
        raise UserError(f"--deviation is {deviation:g}; it must be a finite number above 0, e.g. 0.03")
    families = comparisons(config)
    if max(each.variants for each in families) < 2:
        raise UserError(f"study {config['study']} has one parameterization; a comparison needs two")
    spreads = {setting: _spread(frame, setting, deviation) for setting in frame["setting"].unique()}
    if not any(isinstance(spread, Spread) for spread in spreads.values()):
        reasons = "; ".join(f"{setting}: {why}" for setting, why in spreads.items())
        raise UserError(f"how values scatter is not known ({reasons}); assume a deviation, e.g. --deviation 0.03")
    hours = _Hours(config, frame, record)
    rows = [["setting", "spread", "seeds now", "to resolve", "more hours", "to show equivalence", "more hours"]]
    notes = []
    for setting, spread in spreads.items():
        now = _seeds(frame[frame["setting"] == setting])
        if isinstance(spread, Spread):
            resolve, equal = (
                [_most(families, name, 1 + difference, each) for each in (spread.deviation, spread.low, spread.high)]
                for name in ("to_resolve", "to_show_equivalence")
            )
            told = (_range(resolve), hours.of(setting, resolve[0]), _range(equal), hours.of(setting, equal[0]))
            rows.append([setting, _percents(spread), now, *told])
            notes += _of_samples(config, setting, spread, families, difference)
        else:
            rows.append([setting, spread, now, "?", "?", "?", "?"])
    where = f"in brackets its {100 * CONFIDENCE:.0f} % interval, and the seeds needed at its ends"
    origin = where if deviation is None else "assumed"
    return [
        f"study {config['study']}: {_in_words(config, families)}; a difference of {100 * difference:.3g} %, "
        f"with {100 * power.POWER:.0f} % power",
        *aligned(rows),
        "",
        *notes,
        f"spread: the deviation of ln(value) between variants of one seed; {origin}",
        hours.ground,
    ]


def comparisons(config: Mapping[str, Any]) -> list[Comparisons]:
    """Return what a study declares to compare: with its baseline and within its families, or else each with each."""
    declared, variants = config["comparison"], len(config["grid"]["parameterizations"])
    found = [Comparisons(variants, baseline=True)] if declared["baseline"] else []
    found += [Comparisons(len(members), baseline=False) for members in (declared["families"] or {}).values()]
    return found or [Comparisons(variants, baseline=False)]


def _difference(config: Mapping[str, Any], asked: float | None) -> float:
    found = config["comparison"]["smallest_difference"] if asked is None else asked
    if found is None:
        raise UserError("the study declares no comparison.smallest_difference; say which, e.g. --difference 0.05")
    if not 0 < found <= 1:
        raise UserError(f"--difference is {found:g}; it must be above 0 and at most 1, e.g. 0.05 for 5 %")
    return float(found)


def _spread(frame: pd.DataFrame, setting: str, assumed: float | None) -> Spread | str:
    """Return the spread in a setting, or why it is not known."""
    if assumed is not None:
        return Spread(assumed, assumed, assumed)
    here = cell_means(frame[frame["setting"] == setting])
    if here.empty:
        return "no finished cell"
    fitted = fit(here["parameterization"].tolist(), here["seed"].tolist(), here["value"].tolist())
    if fitted.scale != RATIO:
        return "a value is not above 0"
    if not fitted.df:
        return "fewer than two variants share two seeds"
    if not fitted.deviation > 1e-9:
        return "variants do not scatter"
    tails = (1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2
    low, high = (fitted.deviation * float(np.sqrt(fitted.df / stats.chi2.ppf(tail, fitted.df))) for tail in tails)
    return Spread(fitted.deviation, low, high, _share_of_samples(frame, setting, fitted.deviation))


def _share_of_samples(frame: pd.DataFrame, setting: str, deviation: float) -> float | None:
    """Return the share of the residual variance that finite samples make, at most: shared latents are in it too."""
    if "error" not in frame:
        return None
    rows = frame[(frame["setting"] == setting) & (frame["status"] == "finished")]
    known = rows.dropna(subset="error")
    if known.empty:
        return None
    draws = known.groupby(["parameterization", "seed"])["draw"].transform("nunique")
    relative = ((known["error"] / known["value"]) ** 2 / draws).mean()
    return min(1.0, float(relative) / deviation**2)


def _seeds(here: pd.DataFrame) -> str:
    counts = here[here["status"] == "finished"].groupby("parameterization")["seed"].nunique()
    every = [int(counts.get(name, 0)) for name in here["parameterization"].unique()]
    return f"{min(every)} to {max(every)}" if min(every) < max(every) else str(every[0])


def _most(families: list[Comparisons], name: str, ratio: float, deviation: float) -> int | None:
    """Return the seeds that the most demanding family needs."""
    needed = [getattr(family, name)(ratio, deviation) for family in families if family.variants > 1]
    return None if None in needed else max(needed)


def _range(needed: list[int | None]) -> str:
    """Return e.g. ``7 (4–15)``, or ``7`` where the spread is assumed."""
    most = power.MOST_SEEDS
    value, low, high = (f"over {most:,}" if each is None else f"{each:,}" for each in needed)
    return value if low == high else f"{value} ({low}–{high})"


def _percents(spread: Spread) -> str:
    value, low, high = (f"{100 * each:.2g}" for each in (spread.deviation, spread.low, spread.high))
    return f"{value} %" if low == high else f"{value} % ({low}–{high} %)"


def _of_samples(
    config: Mapping[str, Any], setting: str, spread: Spread, families: list[Comparisons], difference: float
) -> list[str]:
    """Return what more samples would save, where their error is known."""
    if spread.samples is None:
        return [f"{setting}: what more samples would save is not known, because rows have no standard errors"]
    left = spread.deviation * float(np.sqrt(1 - spread.samples * (1 - 1 / MORE_SAMPLES)))
    share = f"{setting}: finite samples are at most {100 * spread.samples:.0f} % of the variance"
    if left <= 0:
        return [share]
    resolve, equal = (
        _range([_most(families, name, 1 + difference, left)] * 3) for name in ("to_resolve", "to_show_equivalence")
    )
    images = MORE_SAMPLES * config["sampling"]["images"]
    return [
        f"{share}: with {MORE_SAMPLES} times as many ({images:,}), at least {resolve} to resolve and {equal} to show "
        "equivalence"
    ]


def _in_words(config: Mapping[str, Any], families: list[Comparisons]) -> str:
    variants, baseline = len(config["grid"]["parameterizations"]), config["comparison"]["baseline"]
    how = [f"{counted(variants - 1, 'variant')} against {baseline}"] if baseline else []
    for name, members in (config["comparison"]["families"] or {}).items():
        how.append(f"the {len(members)} of {name} with each other")
    return ", ".join(how) or f"{variants} variants, each with each"


class _Hours:
    """What seeds cost that a study has not trained yet."""

    def __init__(self, config: Mapping[str, Any], frame: pd.DataFrame, record: Path | None) -> None:
        self._frame = frame
        self._variants = config["grid"]["parameterizations"]
        try:
            found = estimating.estimate(config, record or rates.newest_record())
        except UserError as error:
            self._seconds: dict[str, float] = {}
            self.ground = f"hours: not known: {error}"
            return
        self._seconds = {scale.name: scale.cell for scale in found.scales}
        unit = "GPU-hours" if found.kind == "cuda" else "hours of one cell after the other"
        self.ground = f"more hours: {unit} on {found.device} for cells not finished yet; {found.grounds[0]}"

    def of(self, setting: str, seeds: int | None) -> str:
        """Return the hours of the cells that a setting lacks for so many seeds."""
        here = self._frame[self._frame["setting"] == setting]
        scale = str(here["scale"].iloc[0])
        if seeds is None or scale not in self._seconds:
            return "?"
        trained = here[here["status"] == "finished"].groupby("parameterization")["seed"].nunique()
        lacking = sum(max(0, seeds - int(trained.get(name, 0))) for name in self._variants)
        return estimating.hours(self._seconds[scale], lacking)
