"""Quantiles of the largest t: printed tables, scipy's distributions, and one law against another."""

import numpy as np
import pytest
from scipy import stats

from targetwise.inference.quantiles import (
    Control,
    Range,
    Sampled,
    Separate,
    all_pairs,
    critical,
    inside,
    with_control,
    with_control_complete,
)

HALF = np.sqrt(0.5)


@pytest.mark.parametrize(
    ("variants", "df", "level", "q"),
    [  # Harter (1960), Tables of range and studentized range
        (2, 2, 0.95, 6.085), (3, 4, 0.95, 5.040), (3, 10, 0.95, 3.877), (5, 20, 0.95, 4.232), (10, 18, 0.95, 5.071),
        (10, 60, 0.95, 4.646), (20, 120, 0.95, 5.126), (3, 10, 0.99, 5.270), (10, 20, 0.99, 6.09),
        (3, 10, 0.90, 3.270),
    ],
)  # fmt: skip
def test_tukey_is_the_printed_table(variants, df, level, q):
    assert np.sqrt(2) * critical(Range(variants), df, level) == pytest.approx(q, abs=6e-3)


@pytest.mark.parametrize(
    ("df", "d"),
    [  # Dunnett (1964), two-sided 5 %, 1 to 9 treatments beside the control
        (5, (2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97)),
        (10, (2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24)),
        (20, (2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95)),
        (60, (2.00, 2.27, 2.41, 2.51, 2.58, 2.64, 2.69, 2.73, 2.77)),
    ],
)
def test_dunnett_is_the_printed_table(df, d):
    found = [with_control_complete(others).difference(df) for others in range(1, 10)]
    np.testing.assert_allclose(found, d, atol=6e-3)


@pytest.mark.parametrize(
    ("df", "d"),
    [  # Dunnett (1955), one-sided 5 %, 1 to 9 treatments
        (5, (2.02, 2.44, 2.68, 2.85, 2.98, 3.08, 3.16, 3.24, 3.30)),
        (10, (1.81, 2.15, 2.34, 2.47, 2.56, 2.64, 2.70, 2.76, 2.81)),
        (20, (1.72, 2.03, 2.19, 2.30, 2.39, 2.46, 2.51, 2.56, 2.60)),
    ],
)
def test_one_sided_dunnett_is_the_printed_table(df, d):
    found = [critical(Control((HALF,) * others, two_sided=False), df, 0.95) for others in range(1, 10)]
    np.testing.assert_allclose(found, d, atol=6e-3)


@pytest.mark.parametrize(("variants", "df"), [(2, 1), (3, 4), (10, 18), (40, 78)])
def test_tukey_is_scipys(variants, df):
    c = np.array([0.5, 2.0, 4.0, 7.0])
    expected = stats.studentized_range.cdf(np.sqrt(2) * c, variants, df)
    np.testing.assert_allclose(inside(Range(variants), c, df), expected, atol=2e-6)


@pytest.mark.parametrize("two_sided", [True, False])
def test_dunnett_is_scipys_multivariate_t(two_sided):
    loadings, df, c = np.array([0.5, 0.7, -0.6]), 5, 2.5
    correlation = np.outer(loadings, loadings)
    np.fill_diagonal(correlation, 1)
    expected = stats.multivariate_t(shape=correlation, df=df, seed=1).cdf(
        [c] * 3, lower_limit=[-c] * 3 if two_sided else [-np.inf] * 3, maxpts=200_000
    )
    assert inside(Control(tuple(loadings), two_sided), c, df) == pytest.approx(expected, abs=5e-4)


def test_two_variants_are_a_paired_t():
    for df in (1, 2, 9):
        for family in (all_pairs(2), with_control_complete(1), Separate(1)):
            assert family.difference(df) == pytest.approx(stats.t.ppf(0.975, df), rel=2e-5)
            assert family.equivalence(df) == pytest.approx(stats.t.ppf(0.95, df), rel=2e-5)
            assert family.p_values(np.array([-2.0]), df) == pytest.approx(2 * stats.t.sf(2, df), abs=1e-5)


def test_p_values_and_quantiles_agree():
    for family in (all_pairs(4), with_control_complete(3), Separate(6)):
        assert family.p_values(np.array([-family.difference(9)]), 9) == pytest.approx(0.05, abs=1e-6)
        assert family.p_values(np.array([0.0]), 9) == pytest.approx(1)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("df", [4, 18])
def test_points_give_what_the_integral_gives(df, two_sided):
    """The law for any correlation, on a correlation that has an integral: within 0.2 % of the quantile."""
    loadings = np.array([0.5, 0.6, 0.7, 0.8])
    correlation = np.outer(loadings, loadings)
    np.fill_diagonal(correlation, 1)
    sampled = Sampled(tuple(map(tuple, correlation.tolist())), two_sided)
    integral = critical(Control(tuple(loadings), two_sided), df, 0.95)
    assert critical(sampled, df, 0.95) == pytest.approx(integral, rel=2e-3)


def test_the_law_follows_the_correlation():
    product = 0.5 * (np.eye(4) + 1)
    assert isinstance(with_control(product).law, Control)
    other = product.copy()
    other[0, 1] = other[1, 0] = 0.3
    assert isinstance(with_control(other).law, Sampled)
    # Opposite directions are the worst: their quantile lies above that of one direction, below Bonferroni's.
    one_direction = critical(Control((HALF,) * 4, two_sided=False), 8, 0.95)
    assert one_direction < with_control(product).equivalence(8) < Separate(4).equivalence(8)
