"""The inference against programs that are not ours: R's printed numbers, statsmodels, scipy."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from targetwise.inference.blocks import design
from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
from targetwise.inference.sources import sources

#: What R 4.2.2's TukeyHSD(aov(log(value) ~ seed + parameterization)) prints of draw 0: b − a, low, high, p.
TUKEY = {
    ("epsilon", "v"): (-0.02991196791, -0.1160074250, 0.0561834891, 0.799726669),
    ("epsilon", "x0"): (0.16697108456, 0.0808756275, 0.2530665416, 0.000370304),
    ("epsilon", "edm"): (-0.04012729675, -0.1262227538, 0.0459681603, 0.589541485),
    ("epsilon", "flow"): (-0.04603157278, -0.1321270298, 0.0400638843, 0.466779374),
    ("v", "x0"): (0.19688305247, 0.1107875954, 0.2829785095, 0.000077286),
    ("v", "edm"): (-0.01021532884, -0.0963107859, 0.0758801282, 0.995047270),
    ("v", "flow"): (-0.01611960487, -0.1022150619, 0.0699758522, 0.972945008),
    ("x0", "edm"): (-0.20709838131, -0.2931938384, -0.1210029243, 0.000046806),
    ("x0", "flow"): (-0.21300265734, -0.2990981144, -0.1269072003, 0.000035288),
    ("edm", "flow"): (-0.00590427603, -0.0919997331, 0.0801911810, 0.999414149),
}

#: What multcomp's glht(Dunnett) prints: estimate, low, high, p; of all cells, and without x0 at 1 and epsilon at 3.
DUNNETT = {
    "v": (-0.0299120, -0.1057314, 0.0459075, 0.64776179),
    "x0": (0.1669711, 0.0911516, 0.2427905, 0.00016667),
    "edm": (-0.0401273, -0.1159467, 0.0356922, 0.41556640),
    "flow": (-0.0460316, -0.1218510, 0.0297879, 0.30690477),
}
DUNNETT_OF_PART = {
    "v": (-0.0408566, -0.1198591, 0.0381460, 0.40769443),
    "x0": (0.1749163, 0.0882900, 0.2615426, 0.00058976),
    "edm": (-0.0510719, -0.1300745, 0.0279306, 0.24476806),
    "flow": (-0.0569762, -0.1359787, 0.0220264, 0.17794368),
}


@pytest.fixture
def both_draws():
    return pd.read_csv(ROOT / "tests/data/seeds.csv")


@pytest.fixture
def example(both_draws):
    return both_draws[both_draws["draw"] == 0].drop(columns="draw")


def without(frame, *cells):
    for name, seed in cells:
        frame = frame[(frame["parameterization"] != name) | (frame["seed"] != seed)]
    return frame


# --- against R -----------------------------------------------------------------------------------------------------


def test_tukey_is_what_r_prints(example):
    found = compare(example, Declared())
    assert (found.method, found.df) == ("pooled", 12)
    assert found.deviation == pytest.approx(0.0381992003, abs=1e-9)
    for row in found.pairs.itertuples():
        difference, low, high, p_value = TUKEY[row.a, row.b]
        # R subtracts the other way round: its b − a is −ln(a/b).
        assert -math.log(row.ratio) == pytest.approx(difference, abs=1e-9)
        assert (-math.log(row.high), -math.log(row.low)) == pytest.approx((low, high), abs=2e-7)
        assert row.p_value == pytest.approx(p_value, abs=2e-6)
    assert len(found.pairs) == len(TUKEY)


@pytest.mark.parametrize(
    ("missing", "expected", "tolerance"),
    [((), DUNNETT, 1e-5), ((("x0", 1), ("epsilon", 3)), DUNNETT_OF_PART, 1e-4)],
    ids=["complete", "two cells missing"],
)
def test_dunnett_is_what_r_prints(example, missing, expected, tolerance):
    found = compare(without(example, *missing), Declared("epsilon"))
    assert list(found.pairs["a"]) == list(expected) and set(found.pairs["b"]) == {"epsilon"}
    for row in found.pairs.itertuples():
        difference, low, high, p_value = expected[row.a]
        assert math.log(row.ratio) == pytest.approx(difference, abs=1e-7)
        assert (math.log(row.low), math.log(row.high)) == pytest.approx((low, high), abs=tolerance)
        assert row.p_value == pytest.approx(p_value, abs=2e-3 if missing else 2e-4)


def test_variance_components_are_what_r_prints(both_draws):
    """By lme4's lmer of R 4.2.2, REML."""
    found = sources(both_draws)
    assert (found.seed, found.residual, found.draw) == pytest.approx(
        (0.00209408455, 0.00154661898, 0.00014146699), rel=1e-6
    )
    one = both_draws[both_draws["draw"] == 0]
    part = sources(without(one, ("x0", 1), ("epsilon", 3)))
    assert part.estimator == "REML"
    assert (part.seed, part.residual) == pytest.approx((0.0020846755, 0.0012547840), rel=1e-3)
    lone = both_draws[
        (both_draws["parameterization"] == "flow") & (both_draws["seed"] == 3) & (both_draws["draw"] == 1)
    ]
    part = sources(without(both_draws.drop(index=lone.index), ("x0", 1)))
    assert (part.seed, part.residual, part.draw) == pytest.approx(
        (0.00224164600, 0.00118777780, 0.00014059175), rel=2e-3
    )


# --- against independent fits --------------------------------------------------------------------------------------


@given(some.integers(0, 10_000))
def test_least_squares_are_statsmodels(number):
    """Over random tables with random holes: estimates, their covariance, residual deviation, degrees of freedom."""
    random = np.random.default_rng(number)
    variants, seeds = random.integers(2, 6), random.integers(2, 6)
    present = random.random((variants, seeds)) < 0.75
    of = design(present)
    y = np.where(present, random.standard_normal((variants, seeds)), np.nan)
    frame = pd.DataFrame(
        [{"v": v, "s": s, "y": y[v, s]} for v in range(variants) for s in range(seeds) if present[v, s]],
        columns=["v", "s", "y"],
    )
    if of.df < 1 or frame["v"].nunique() < 2 or frame["s"].nunique() < 2:
        return
    fitted = smf.ols("y ~ C(v) + C(s)", frame).fit()
    effects, residuals = of.fit(y)
    assert of.df == fitted.df_resid
    assert (residuals**2).sum() / of.df == pytest.approx(fitted.mse_resid, rel=1e-8, abs=1e-14)
    shown = sorted(frame["v"].unique())
    for a, b in ((a, b) for a in shown for b in shown if a < b):
        variance = of.variance(np.array([a]), np.array([b]))[0]
        if of.component[a] != of.component[b]:
            assert np.isnan(variance)
            continue
        contrast = np.zeros(len(fitted.params))
        for name, sign in ((a, 1), (b, -1)):
            term = f"C(v)[T.{name}]"
            if term in fitted.params.index:
                contrast[fitted.params.index.get_loc(term)] = sign
        against = fitted.t_test(contrast)
        if len(set(of.component[shown])) == 1:  # else statsmodels' solution splits the parts as it likes
            assert effects[a] - effects[b] == pytest.approx(float(against.effect[0]), abs=1e-8)
            expected = float(against.sd[0, 0]) ** 2 / fitted.mse_resid
            assert variance == pytest.approx(expected, rel=1e-7)


def test_two_variants_are_a_paired_t_test(example):
    found = compare(example[example["parameterization"].isin(["v", "x0"])], Declared(None, 0.05))
    row = found.pairs.iloc[0]
    wide = example.assign(y=np.log(example["value"])).pivot_table(
        index="seed", columns="parameterization", values="y"
    )
    expected = stats.ttest_rel(wide["v"], wide["x0"])
    interval, ninety = expected.confidence_interval(0.95), expected.confidence_interval(0.90)
    assert found.method == "paired"
    assert (math.log(row.low), math.log(row.high)) == pytest.approx((interval.low, interval.high))
    assert (math.log(row.equivalence_low), math.log(row.equivalence_high)) == pytest.approx((ninety.low, ninety.high))
    assert row.p_value == pytest.approx(expected.pvalue)


def test_what_seeds_share_does_not_matter(example):
    shifted = example.assign(value=example["value"] * (1 + example["seed"]) ** 3)
    pd.testing.assert_frame_equal(compare(example, Declared()).pairs, compare(shifted, Declared()).pairs)
