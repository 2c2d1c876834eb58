"""How often intervals and verdicts are wrong, against what docs/statistics.md claims and what it says was measured.

The tables' figures come from another, larger run of the same code: each may differ by the Monte Carlo error of both.
"""

import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from simulated import CONDITIONS, DESIGNS, MARGIN, conditions, family_of, rates, residuals

from targetwise.inference.blocks import design
from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
from targetwise.inference.intervals import intervals, rule

COUNT = {3: 4000, 10: 2500, 40: 400}
MEASURED_WITH = {3: 20_000, 10: 20_000, 40: 5_000}

#: Conditions under which the documents claim 95 % coverage and at most 5 % false verdicts.
CLAIMED = ("normal", "one cell missing")


def documented(kind):
    """Return {(variants, seeds): {condition: (coverage, false equivalence)}} as printed in docs/statistics.md."""
    text = (ROOT / "docs/statistics.md").read_text()
    table = re.search(rf"\| {kind} \| method .*?(?=\n\n|\Z)", text, re.DOTALL)[0].splitlines()
    columns = [name.strip() for name in table[0].strip("|").split("|")][2:]
    found = {}
    for line in table[2:]:
        named, _, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        values = [tuple(float(part) / 100 for part in cell.split("/")) for cell in cells]
        found[tuple(int(part) for part in named.split("×"))] = dict(zip(columns, values, strict=True))
    return found


def error(share, variants, *counts):
    """Return four standard errors of a share, with half an event so that none in so many is no proof of 0."""
    share = np.clip(share, 0.5 / min(counts), 1 - 0.5 / min(counts))
    return 4 * np.sqrt(share * (1 - share) * sum(1 / count for count in counts))


@pytest.mark.parametrize("kind", ["all pairs", "baseline"])
@pytest.mark.parametrize(("variants", "seeds"), DESIGNS, ids=lambda value: str(value))
def test_rates_are_those_documented(variants, seeds, kind):
    table, count = documented(kind)[variants, seeds], COUNT[variants]
    assert set(table) == set(conditions(kind))
    random = np.random.default_rng([14, variants, seeds])
    for condition, (coverage, false_equivalence) in table.items():
        covered, resolved, equivalent, _ = rates(variants, seeds, kind, condition, count, random)
        both = (count, MEASURED_WITH[variants])
        assert covered == pytest.approx(coverage, abs=error(coverage, variants, *both)), condition
        # Equal variants are called better or worse exactly where an interval misses 0.
        assert 1 - resolved == pytest.approx(coverage, abs=error(coverage, variants, *both)), condition
        assert equivalent == pytest.approx(false_equivalence, abs=error(false_equivalence, variants, *both)), (
            condition
        )
        if condition in CLAIMED:
            assert covered >= 0.95 - error(0.95, variants, count), condition
            assert resolved <= 0.05 + error(0.05, variants, count), condition
            assert equivalent <= 0.05 + error(0.05, variants, count), condition


def test_the_document_claims_no_more_than_it_measured():
    for kind in ("all pairs", "baseline"):
        for (variants, _), table in documented(kind).items():
            for condition in CLAIMED:
                coverage, false_equivalence = table[condition]
                assert coverage >= 0.95 - error(0.95, variants, MEASURED_WITH[variants])
                assert false_equivalence <= 0.05 + error(0.05, variants, MEASURED_WITH[variants])


@pytest.mark.parametrize("kind", ["all pairs", "baseline"])
def test_pooled_intervals_are_exact_not_merely_safe(kind):
    """Under the model Tukey and Dunnett leave out exactly 5 %: quantiles are neither too small nor too large."""
    count, random = 20_000, np.random.default_rng(3)
    y = residuals("normal", (count, 5, 4), random)
    of, family = design(np.ones((5, 4), dtype=bool)), family_of(5, kind)
    by = rule(y, of, [family])
    assert set(by.method) == {"pooled"}
    at = intervals(y, of, family, by)
    assert (np.abs(at.estimate) <= at.half).all(-1).mean() == pytest.approx(0.95, abs=error(0.95, 5, count))
    if kind == "baseline":  # the worst arrangement of one-sided errors
        signs = np.resize([1, -1], 4)
        false = ((signs * at.estimate) > at.equivalence_half).any(-1).mean()
        assert false == pytest.approx(0.05, abs=error(0.05, 5, count))


@pytest.mark.parametrize("kind", ["all pairs", "baseline"])
def test_tables_with_many_holes_are_covered(kind):
    """Tukey–Kramer is proved for independent groups only; Dunnett's correlation has no product form here."""
    count, random = 10_000, np.random.default_rng(7)
    present = np.array(
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 1, 1, 1]], dtype=bool
    )
    y = np.where(present, residuals("normal", (count, 5, 5), random), np.nan)
    of, family = design(present), family_of(5, kind)
    judged = family.judged(of)
    assert judged.sum() == (7 if kind == "all pairs" else 4)
    by = rule(y, of, [family])
    assert set(by.method) == {"pooled"}
    at = intervals(y, of, family, by)
    assert np.isnan(at.half[:, ~judged]).all()
    covered = (np.abs(at.estimate) <= at.half)[:, judged].all(-1).mean()
    assert 0.95 - error(0.95, 5, count) <= covered <= 0.965


@pytest.mark.parametrize("kind", ["all pairs", "baseline"])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(("variants", "seeds"), [(3, 3), (3, 10), (10, 3)])
def test_one_table_is_judged_as_a_batch_is(variants, seeds, condition, kind):
    """So the rates above are those of the page."""
    random = np.random.default_rng(5)
    present = np.ones((variants, seeds), dtype=bool)
    present[1, 0] = condition != "one cell missing"
    y = np.where(present, 0.1 * residuals(condition, (6, variants, seeds), random), np.nan)
    of, family = design(present), family_of(variants, kind)
    by = rule(y, of, [family])
    at = intervals(y, of, family, by)
    for number in range(len(y)):
        cells = [
            {"parameterization": f"v{v}", "seed": s, "value": np.exp(y[number, v, s])}
            for v in range(variants) for s in range(seeds)
        ]  # fmt: skip
        found = compare(pd.DataFrame(cells), Declared("v0" if kind == "baseline" else None))
        assert found.method == by.method[number]
        np.testing.assert_allclose(np.log(found.pairs["ratio"]), at.estimate[number], atol=1e-12)
        np.testing.assert_allclose(np.log(found.pairs["high"]), (at.estimate + at.half)[number], rtol=1e-9)
        np.testing.assert_allclose(
            np.log(found.pairs["equivalence_low"]), (at.estimate - at.equivalence_half)[number], rtol=1e-9
        )


def test_the_margin_of_the_simulation_is_far_from_the_errors():
    """Where it is not, two one-sided tests err less than they can."""
    assert MARGIN > 10
