"""From the finished cells of one setting to the table of its comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from targetwise.errors import UserError
from targetwise.inference.blocks import Design, design, on_scale
from targetwise.inference.declared import Declared
from targetwise.inference.intervals import MODERATED, PAIRED, Family, rule
from targetwise.inference.scatter import FEWEST_VARIANTS, WIDER
from targetwise.inference.sources import sources
from targetwise.inference.table import rows

Array = np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The comparisons of one setting.

    Attributes:
        pairs: a row per comparison of a with b. ``ratio`` is a/b with its simultaneous 95 % interval ``low`` to
            ``high`` and the family's ``p_value``; ``equivalence_low`` to ``equivalence_high`` is the 90 % interval
            that is held against ±δ. ``resolved`` says whether the 95 % interval leaves out 1.
            ``resolvable`` is the smallest ratio above 1 that this design resolves with 80 % power, ``seeds_needed``
            how many seeds resolve the observed ratio, ``equivalence_seeds`` how many show equal variants equivalent
            within δ (inf: over 1,000). On the scale ``difference`` ratios are differences a − b and 1 is 0.
        scale: ``ratio``, or ``difference`` where a value is not positive.
        method: ``pooled``, ``moderated`` or ``paired``: the variance that comparisons are judged by.
        why: a sentence that says why.
        deviation: residual deviation, of ln(value) on the scale ``ratio``.
        df: degrees of freedom of the residuals.
        correlation: of two variants over seeds.
        factor: how many times the seeds it would take without common random numbers.
        critical: family → half-width of its 95 % intervals in standard errors (the largest, where they differ).
    """

    pairs: pd.DataFrame
    scale: str
    method: str
    why: str
    deviation: float
    df: int
    correlation: float
    factor: float
    critical: dict[str, float]


def compare(values: pd.DataFrame, declared: Declared) -> Comparison:
    """Compare the variants of one setting.

    Args:
        values: columns parameterization, seed and value, a row per cell, draws averaged. A cell without a finite
            value counts as not finished; a variant without any is still listed.
        declared: what is compared with what.

    Raises:
        UserError: if a cell has two rows, or δ is not above 0.
    """
    _require_sound(values, declared)
    names = list(dict.fromkeys([*values["parameterization"], *_declared_names(declared)]))
    finished = values[np.isfinite(values["value"].to_numpy(dtype=float))]
    scaled, scale = on_scale(finished["value"].to_numpy(dtype=float))
    table = finished.assign(value=scaled).pivot_table(
        index="parameterization", columns="seed", values="value", observed=True
    )
    y = table.reindex(names).to_numpy(dtype=float)
    here = design(np.isfinite(y))
    families = _families(names, declared)
    by = rule(y[None], here, families)
    margin = np.log1p(declared.smallest_difference) if declared.smallest_difference and scale == "ratio" else None
    found = {family.name: rows(y, here, family, by, margin) for family in families}
    pairs = pd.concat([frame for frame, _ in found.values()], ignore_index=True).rename(
        columns={"difference": "ratio"}
    )
    pairs[["a", "b"]] = pairs[["a", "b"]].map(names.__getitem__).astype(object)
    if scale == "ratio":
        ratios = ["ratio", "low", "high", "equivalence_low", "equivalence_high", "resolvable"]
        pairs[ratios] = np.exp(pairs[ratios])
    spread = sources(finished)
    return Comparison(
        pairs,
        scale,
        method=str(by.method[0]),
        why=_why(str(by.method[0]), here, float(by.d_0[0]), scale),
        deviation=_deviation(y, here),
        df=here.df,
        correlation=spread.correlation,
        factor=spread.factor,
        critical={name: critical for name, (_, critical) in found.items()},
    )


def holm(p_values: Sequence[float]) -> Array:
    """Return p-values adjusted for their number (Holm 1979); NaN stays and does not count."""
    of = np.array(p_values, dtype=float)
    known = np.isfinite(of)
    if known.any():
        of[known] = multipletests(of[known], method="holm")[1]
    return of


def _require_sound(values: pd.DataFrame, declared: Declared) -> None:
    twice = values[values.duplicated(["parameterization", "seed"])]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(f"two values for {first['parameterization']}, seed {first['seed']}; average draws first")
    if declared.smallest_difference is not None and not declared.smallest_difference > 0:
        raise UserError(f"the smallest difference of interest is {declared.smallest_difference}; it must be above 0")


def _declared_names(declared: Declared) -> list[str]:
    members = [name for family in declared.families.values() for name in family]
    return members if declared.baseline is None else [declared.baseline, *members]


def _families(names: list[str], declared: Declared) -> list[Family]:
    """Return all variants with the baseline, and all pairs of each family; all pairs where neither is declared."""
    number = {name: place for place, name in enumerate(names)}
    found = []
    if declared.baseline is not None:
        others = tuple(place for name, place in number.items() if name != declared.baseline)
        found.append(
            Family(f"against {declared.baseline}", others, (number[declared.baseline],) * len(others), baseline=True)
        )
    groups = dict(declared.families) or ({} if declared.baseline else {"all pairs": names})
    for group, members in groups.items():
        pairs = list(combinations([number[name] for name in members], 2))
        found.append(Family(group, tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))
    return found


def _deviation(y: Array, here: Design) -> float:
    _, residuals = here.fit(y)
    return float(np.sqrt((residuals**2).sum() / here.df)) if here.df else np.nan


def _why(method: str, here: Design, d_0: float, scale: str) -> str:
    """Return the sentence that says which variance the comparisons are judged by, and why."""
    if here.df == 0:
        return "Fewer than two variants share two seeds, so the spread is not known."
    if method == PAIRED:
        why = (
            "Each comparison is judged by the variance of its own paired differences: with these seeds that makes"
            f" intervals at most {100 * (WIDER - 1):.0f} % wider than one variance for all would, and variants may"
            " scatter unequally."
        )
    elif method == MODERATED:
        why = (
            "The variances of the pairs differ by more than chance explains, so each is moderated towards their"
            f" common value, which carries {d_0:,.{0 if d_0 >= 10 else 1}f} degrees of freedom (Smyth 2004)."
        )
    elif np.isinf(d_0):
        why = "One residual variance for all: those of the pairs differ no more than chance explains."
    else:
        why = (
            f"One residual variance for all: fewer than {FEWEST_VARIANTS} variants with two shared seeds"
            " do not tell whether they scatter unequally."
        )
    if scale == "difference":
        why += (
            " Values are not all above 0, so differences are given instead of ratios, and equivalence is not judged."
        )
    return why
