"""What is said of a comparison: better, worse, equivalent, not resolved, or too few seeds."""

from typing import Final

import numpy as np

Array = np.ndarray

BETTER: Final = "better"
WORSE: Final = "worse"
EQUIVALENT: Final = "equivalent"
NOT_RESOLVED: Final = "not resolved"
TOO_FEW_SEEDS: Final = "too few seeds"


def resolved(low: Array, high: Array) -> Array:
    """Return where a simultaneous 95 % interval of a difference does not hold 0."""
    return np.asarray((low > 0) | (high < 0))


def equivalent(low: Array, high: Array, margin: float | None) -> Array:
    """Return where a simultaneous 90 % interval lies within ±``margin``: two one-sided tests (Schuirmann 1987)."""
    if margin is None:
        return np.zeros(np.shape(low), dtype=bool)
    return np.asarray((low > -margin) & (high < margin))


def verdicts(low: Array, high: Array, equivalence_low: Array, equivalence_high: Array, margin: float | None) -> Array:
    """Return the verdict on a against b from intervals of a − b; the lower value is better.

    A difference that is resolved and yet within the margin is ``equivalent``: it is there, and too small to matter.

    Args:
        low: lower ends of the simultaneous 95 % intervals on the scale of the analysis, NaN where there is none.
        high: their upper ends.
        equivalence_low: lower ends of the simultaneous 90 % intervals.
        equivalence_high: their upper ends.
        margin: ln(1 + δ), or None where no smallest difference of interest was declared.
    """
    small = equivalent(equivalence_low, equivalence_high, margin)
    return np.select(
        [np.isnan(low), small, high < 0, low > 0],
        [TOO_FEW_SEEDS, EQUIVALENT, BETTER, WORSE],
        NOT_RESOLVED,
    )
