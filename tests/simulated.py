"""Tables with known truth, and how often the intervals and verdicts on them are wrong.

`python tests/simulated.py` prints the tables of docs/statistics.md (some minutes); the tests hold a smaller run
against them.
"""

import sys

import numpy as np

from targetwise.inference.blocks import design
from targetwise.inference.intervals import Family, intervals, rule
from targetwise.inference.verdicts import verdicts

DESIGNS = [(variants, seeds) for variants in (3, 10, 40) for seeds in (3, 5, 10)]

#: What the residuals are: their name in the documents → residuals of variance 1 for variants whose scatter is 1.
CONDITIONS = ("normal", "one cell missing", "skewed", "one variant 3×", "baseline 3×")

#: δ in residual deviations: far beyond the errors, where two one-sided tests err most.
MARGIN = 20.0


def family_of(variants, kind):
    if kind == "baseline":
        return Family("against the first", tuple(range(1, variants)), (0,) * (variants - 1), baseline=True)
    a, b = np.triu_indices(variants, 1)
    return Family("all pairs", tuple(a.tolist()), tuple(b.tolist()))


def residuals(condition, shape, random):
    """Return residuals (N, V, S): normal, or a centred exponential distribution's (skewness 2)."""
    if condition == "skewed":
        return random.exponential(size=shape) - 1
    scatter = np.ones(shape[1])
    if condition == "one variant 3×":
        scatter[-1] = 3
    if condition == "baseline 3×":
        scatter[0] = 3
    return scatter[:, None] * random.standard_normal(shape)


def rates(variants, seeds, kind, condition, count, random):
    """Return how often all intervals hold the truth, a false better or worse is said, and a false equivalent.

    Coverage is of variants that differ; better and worse are false where all are equal; equivalent is false where
    neighbours differ by the margin exactly.
    """
    present = np.ones((variants, seeds), dtype=bool)
    if condition == "one cell missing":
        present[1, 0] = False
    family, of = family_of(variants, kind), design(present)
    seed = 2 * random.standard_normal((count, 1, seeds))
    equal = seed + residuals(condition, (count, variants, seeds), random)
    by = rule(equal, of, [family])

    def found(truth):
        y = np.where(present, equal + truth[:, None], np.nan)
        at = intervals(y, of, family, by)
        says = verdicts(
            at.estimate - at.half, at.estimate + at.half,
            at.estimate - at.equivalence_half, at.estimate + at.equivalence_half, MARGIN,
        )  # fmt: skip
        difference = truth[list(family.a)] - truth[list(family.b)]
        return at, says, difference

    at, _, difference = found(random.standard_normal(variants))
    covered = (np.abs(at.estimate - difference) <= at.half).all(-1)
    at, _, _ = found(np.zeros(variants))
    resolved = (np.abs(at.estimate) > at.half).any(-1)
    sides = MARGIN * (np.arange(variants) % 2)
    if kind == "baseline":
        sides = np.where(np.arange(variants) % 2, MARGIN, -MARGIN) * (np.arange(variants) > 0)
    _, says, difference = found(sides)
    equivalent = ((says == "equivalent") & (np.abs(difference) > MARGIN / 2)).any(-1)
    methods = dict(zip(*np.unique(by.method, return_counts=True), strict=True))
    return covered.mean(), resolved.mean(), equivalent.mean(), methods


def conditions(kind):
    return CONDITIONS if kind == "baseline" else CONDITIONS[:-1]


def print_tables(counts):
    for kind in ("all pairs", "baseline"):
        print(f"\n| {kind} | method | " + " | ".join(conditions(kind)) + " |")
        print("|---" * (2 + len(conditions(kind))) + "|")
        for variants, seeds in DESIGNS:
            cells, methods = [], {}
            for condition in conditions(kind):
                random = np.random.default_rng([variants, seeds, len(condition)])
                covered, _, equivalent, found = rates(variants, seeds, kind, condition, counts[variants], random)
                cells.append(f"{100 * covered:.1f} / {100 * equivalent:.1f}")
                methods |= {condition: found}
            usual = methods["normal"]
            named = " or ".join(sorted(usual, key=usual.get, reverse=True))
            print(f"| {variants} × {seeds} | {named} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(print_tables({3: 20_000, 10: 20_000, 40: 5_000}))
