"""The rows of one family of comparisons: interval, verdict, and what more seeds would say."""

import numpy as np
import pandas as pd

from targetwise.inference import power, scatter
from targetwise.inference.blocks import Design
from targetwise.inference.intervals import MODERATED, POOLED, Family, Intervals, Rule, intervals, law
from targetwise.inference.power import complete_family, needed_for_equivalence, needed_to_resolve
from targetwise.inference.quantiles import Joint, Separate
from targetwise.inference.verdicts import resolved, verdicts

Array = np.ndarray


def rows(y: Array, design: Design, family: Family, by: Rule, margin: float | None) -> tuple[pd.DataFrame, float]:
    """Return a family's comparisons on the scale of the analysis, and the half-width of its intervals in errors.

    Args:
        y: one table (V, S).
        design: its design.
        family: the comparisons.
        by: the rule's choice for this table (N = 1).
        margin: ln(1 + δ) or None.

    Returns:
        A row per comparison, ``a`` and ``b`` as rows of ``y``; ``difference`` and ``resolvable`` are differences.
    """
    judged = family.judged(design)
    found = _without_rounding(intervals(y[None], design, family, by), y)
    low, high = found.estimate - found.half, found.estimate + found.half
    equivalence_low, equivalence_high = (
        found.estimate - found.equivalence_half,
        found.estimate + found.equivalence_half,
    )
    frame = pd.DataFrame(
        {
            "family": family.name,
            "a": family.a,
            "b": family.b,
            "seeds": design.shared[family.a, family.b],
            "difference": np.where(judged, found.estimate, _mean_difference(y, design, family)),
            "low": low,
            "high": high,
            "p_value": np.nan,
            "equivalence_low": equivalence_low,
            "equivalence_high": equivalence_high,
            "resolved": resolved(low, high),
            "verdict": verdicts(low, high, equivalence_low, equivalence_high, margin),
            "resolvable": np.nan,
            "seeds_needed": np.nan,
            "equivalence_seeds": np.nan,
        }
    )
    if not judged.any():
        return frame, np.nan
    method, joint = str(by.method[0]), law(design, family, str(by.method[0]))
    estimate, error, df = (of[judged] for of in (found.estimate, found.error, found.df))
    freedom = float(design.df) if method == POOLED else df
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, estimate / error, np.where(estimate == 0, 0.0, np.inf))
    c = np.broadcast_to(joint.difference(freedom), df.shape)
    frame.loc[judged, "p_value"] = joint.p_values(t, freedom)
    frame.loc[judged, "resolvable"] = [
        power.resolvable(*of) for of in zip(c.tolist(), df.tolist(), strict=True)
    ] * error
    planned, per_seed, before = _plan(design, family, by)
    # In residual deviations: for complete tables the error is √(2/S) of them.
    deviations = error / np.sqrt(_unit_variance(design, family, method)[judged])
    frame.loc[judged, "seeds_needed"] = _seeds(
        np.abs(estimate), deviations, needed_to_resolve(planned, per_seed, before)
    )
    if margin is not None:
        needed = needed_for_equivalence(planned, per_seed, before)
        frame.loc[judged, "equivalence_seeds"] = _seeds(np.full(len(error), margin), deviations, needed)
    return frame, float(c.max())


def _without_rounding(found: Intervals, y: Array) -> Intervals:
    """Set to 0 what rounding leaves of a difference between equal values: it must not be resolved."""
    rounding = 1e-12 * max(1.0, float(np.max(np.abs(y), initial=0.0, where=np.isfinite(y))))
    parts = (found.estimate, found.error, found.df, found.half, found.equivalence_half)
    return Intervals(*(np.where(np.abs(part[0]) < rounding, 0.0, part[0]) for part in parts))


def _mean_difference(y: Array, design: Design, family: Family) -> Array:
    a, b = np.array(family.a, dtype=int), np.array(family.b, dtype=int)
    return scatter.differences(y, design, a, b).mean


def _plan(design: Design, family: Family, by: Rule) -> tuple[Joint | Separate, int, float]:
    """Return the family with all seeds in all its variants, and its degrees of freedom per seed and before any."""
    if by.method[0] != POOLED:
        return Separate(int(family.judged(design).sum())), 1, float(by.d_0[0]) if by.method[0] == MODERATED else 0.0
    variants = len({*family.a, *family.b})
    return complete_family(variants, family.baseline), int(design.present.any(1).sum()) - 1, 0.0


def _unit_variance(design: Design, family: Family, method: str) -> Array:
    """Return the variance of each estimated difference for residuals of variance 1."""
    a, b = np.array(family.a, dtype=int), np.array(family.b, dtype=int)
    if method == POOLED:
        return design.variance(a, b)
    return 2 / np.maximum(design.shared[a, b], 1)


def _seeds(differences: Array, deviations: Array, needed: Array) -> Array:
    """Return the seeds that each difference needs: inf where over 1,000, NaN where nothing is known of the spread."""
    found = []
    for difference, deviation in zip(differences.tolist(), deviations.tolist(), strict=True):
        if deviation == 0:
            found.append(2.0 if difference else np.nan)
        else:
            found.append(float(power.seeds_for(difference / deviation, needed) or np.inf))
    return np.array(found)
