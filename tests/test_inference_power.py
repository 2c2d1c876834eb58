"""Power and numbers of seeds: against the noncentral t, against closed forms, and by simulating what they promise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import family_of

from targetwise.inference import power, scatter
from targetwise.inference.blocks import design
from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
from targetwise.inference.intervals import POOLED, Rule, intervals
from targetwise.inference.quantiles import Separate, all_pairs


@pytest.mark.parametrize(("difference", "c", "df"), [(0.0, 2.0, 4), (3.0, 2.8, 12), (8.0, 4.3, 2), (3.0, 2.0, 300)])
def test_power_is_the_noncentral_t(difference, c, df):
    other_side = stats.nct.cdf(-c, df, difference) if difference < 5 else 0.0  # scipy gives NaN far out
    expected = stats.nct.sf(c, df, difference) + other_side
    assert power.power(difference, c, df) == pytest.approx(expected, abs=1e-7)


def test_with_many_seeds_power_is_that_of_the_normal_distribution():
    """Two variants and known spread: (z_0.975 + z_0.8)² · 2σ²/Δ², and (z_0.95 + z_0.9)² · 2σ²/δ² for equivalence."""
    z, deviation, ratio = stats.norm.ppf, 0.1, 1.02
    variance = 2 * deviation**2 / np.log(ratio) ** 2
    found = power.seeds_to_resolve(ratio, deviation, 2, baseline=False)
    assert found == pytest.approx((z(0.975) + z(0.8)) ** 2 * variance, rel=0.01)
    found = power.seeds_to_show_equivalence(ratio, deviation, 2, baseline=True)
    assert found == pytest.approx((z(0.95) + z(0.9)) ** 2 * variance, rel=0.01)


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(("variants", "ratio"), [(3, 1.08), (10, 1.05), (4, 0.8)])
def test_the_promised_seeds_have_the_promised_power(variants, ratio, baseline):
    """And one seed less has not; both by simulating studies with that many seeds."""
    deviation, count, random = 0.03, 20_000, np.random.default_rng(0)
    error = 4 * np.sqrt(0.16 / count)
    family = family_of(variants, "baseline" if baseline else "all pairs")

    def shares(seeds, truth, margin):
        y = truth + deviation * random.standard_normal((count, variants, seeds))
        of, nothing = design(np.ones((variants, seeds), dtype=bool)), np.full(count, np.nan)
        at = intervals(y, of, family, Rule(np.full(count, POOLED), nothing, nothing))
        estimate = np.abs(at.estimate[:, 0])
        return (estimate > at.half[:, 0]).mean(), (estimate + at.equivalence_half[:, 0] < margin).mean()

    first = np.where(np.arange(variants) == 0, np.log(ratio), 0.0)[:, None]
    resolving = power.seeds_to_resolve(ratio, deviation, variants, baseline)
    assert shares(resolving, first, 0)[0] >= 0.8 - error
    assert resolving == 2 or shares(resolving - 1, first, 0)[0] < 0.8 + error
    showing = power.seeds_to_show_equivalence(ratio, deviation, variants, baseline)
    assert shares(showing, 0 * first, abs(np.log(ratio)))[1] >= 0.8 - error
    assert showing == 2 or shares(showing - 1, 0 * first, abs(np.log(ratio)))[1] < 0.8 + error


def test_smallest_resolvable_and_seeds_of_one_comparison():
    """Four variants at five seeds whose residual deviation is s: by hand from the family's quantile."""
    random = np.random.default_rng(4)
    y = random.normal(0, 0.03, (4, 5)) + np.array([0.0, 0.0, 0.0, 0.05])[:, None]
    cells = [
        {"parameterization": f"v{v}", "seed": s, "value": np.exp(y[v, s])} for v in range(4) for s in range(5)
    ]  # fmt: skip
    found = compare(pd.DataFrame(cells), Declared(None, 0.04))
    error = found.deviation * np.sqrt(2 / 5)
    noncentrality = np.log(found.pairs["resolvable"]) / error
    c = found.critical["all pairs"]
    reached = stats.nct.sf(c, 12, noncentrality) + stats.nct.cdf(-c, 12, noncentrality)
    np.testing.assert_allclose(reached, 0.8, atol=1e-6)
    for row in found.pairs.itertuples():
        expected = power.seeds_to_resolve(row.ratio, found.deviation, 4, baseline=False)
        assert row.seeds_needed == (expected or np.inf)
        assert row.equivalence_seeds == power.seeds_to_show_equivalence(1.04, found.deviation, 4, baseline=False)


def by_hand(difference, deviation, quantile, df):
    """Return the first S whose intervals, on df(S) and of √(2/S) deviations, resolve a difference with 80 % power."""
    return next(
        seeds
        for seeds in range(2, 500)
        if power.power(difference / (deviation * np.sqrt(2 / seeds)), quantile(df(seeds)), df(seeds)) >= power.POWER
    )


def frame(y):
    variants, seeds = np.indices(y.shape).reshape(2, -1)
    return pd.DataFrame({"parameterization": variants, "seed": seeds, "value": np.exp(y.reshape(-1))})


def test_seeds_needed_where_the_variance_is_pooled():
    """Differences of 3, 7 and 4 residual deviations: few seeds, where degrees of freedom matter."""
    y = np.random.default_rng(1).normal(0, 0.03, (3, 4))
    y -= y.mean(1)[:, None]
    y += compare(frame(y), Declared()).deviation * np.array([0.0, 3.0, 7.0])[:, None]
    found = compare(frame(y), Declared())
    assert found.method == "pooled"
    for row in found.pairs.itertuples():
        expected = by_hand(
            abs(np.log(row.ratio)), found.deviation, all_pairs(3).difference, lambda seeds: 2 * (seeds - 1)
        )
        assert row.seeds_needed == expected


def test_seeds_needed_where_each_pair_has_its_variance():
    y = np.random.default_rng(1).normal(0, 0.03, (2, 4)) + np.array([0.0, 0.05])[:, None]
    found = compare(frame(y), Declared())
    assert found.method == "paired"
    deviation = (y[0] - y[1]).std(ddof=1) / np.sqrt(2)
    expected = by_hand(abs((y[0] - y[1]).mean()), deviation, all_pairs(2).difference, lambda seeds: seeds - 1)
    assert found.pairs["seeds_needed"].tolist() == [expected]


def test_seeds_needed_where_variances_are_moderated():
    random = np.random.default_rng(2)
    y = random.normal(0, 1, (9, 4)) * np.repeat([0.09, 0.03], [3, 6])[:, None] + 0.15 * np.arange(9)[:, None]
    found = compare(frame(y), Declared())
    assert found.method == "moderated"
    a, b = np.triu_indices(9, 1)
    of = scatter.differences(y, design(np.ones((9, 4), dtype=bool)), a, b)
    s_0, d_0 = scatter.prior(of.variance[None], of.seeds - 1.0)
    variance, _ = scatter.moderated(of.variance[None], of.seeds - 1.0, s_0, d_0)
    deviations = np.sqrt(variance[0] / 2)
    for row, mean, deviation in zip(found.pairs.itertuples(), of.mean, deviations, strict=True):
        expected = by_hand(abs(mean), deviation, Separate(36).difference, lambda seeds: d_0[0] + seeds - 1)
        assert abs(row.seeds_needed - expected) <= (expected > 16)  # beyond, the curve is interpolated


def test_more_than_a_thousand_seeds_are_no_number():
    assert power.seeds_to_resolve(1.0001, 0.1, 3, baseline=False) is None
    assert power.seeds_to_resolve(1.0, 0.1, 3, baseline=False) is None


def test_between_the_knots_the_curve_is_what_is_computed():
    """Interpolated numbers of seeds are those of the exact quantiles."""
    for family, per_seed, before in ((all_pairs(10), 9, 0.0), (Separate(45), 1, 0.0), (Separate(45), 1, 6.5)):
        curve = power.needed_to_resolve(family, per_seed, before)
        for seeds in (18, 31, 66, 200, 600):
            df = before + per_seed * (seeds - 1)
            exact = power.resolvable(float(family.difference(df)), df) * np.sqrt(2 / seeds)
            assert curve[seeds - 2] == pytest.approx(exact, rel=2e-3)
