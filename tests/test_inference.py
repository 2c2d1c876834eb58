"""Verdicts, families, and tables that are hardly there."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference import scatter
from targetwise.inference.compare import compare, holm
from targetwise.inference.declared import Declared
from targetwise.inference.verdicts import verdicts


def table(values):
    """Return the rows of {parameterization: values of seeds 0, 1, …; None where there is none}."""
    return pd.DataFrame(
        [
            {"parameterization": name, "seed": seed, "value": value}
            for name, row in values.items()
            for seed, value in enumerate(row)
            if value is not None
        ],
        columns=["parameterization", "seed", "value"],
    )


# --- which variance -------------------------------------------------------------------------------------------------


def test_moderation_recovers_a_known_prior():
    """s² = σ²·χ²(4)/4 with 1/σ² ~ χ²(8)/(8·0.09)."""
    random = np.random.default_rng(0)
    sigma = 8 * 0.09 / random.chisquare(8, (1, 200_000))
    s_0, d_0 = scatter.prior(sigma * random.chisquare(4, sigma.shape) / 4, np.full(sigma.shape[1], 4.0))
    assert s_0[0] == pytest.approx(0.09, rel=0.02) and d_0[0] == pytest.approx(8, rel=0.04)
    variance, df = scatter.moderated(np.array([[0.5]]), np.array([4.0]), np.array([0.09]), np.array([8.0]))
    assert (variance[0, 0], df[0, 0]) == (pytest.approx((8 * 0.09 + 4 * 0.5) / 12), 12)
    equal = 0.09 * random.chisquare(4, (1, 200)) / 4
    assert np.isinf(scatter.prior(equal * 0 + 0.09, np.full(200, 4.0))[1][0])


def test_unequal_scatter_is_noticed_and_said():
    random = np.random.default_rng(2)
    scatters = np.where(np.arange(12) < 4, 0.2, 0.01)
    found = compare(table({f"v{v}": np.exp(random.normal(0, scatters[v], 6)) for v in range(12)}), Declared())
    assert found.method == "moderated" and "Smyth" in found.why
    width = np.log(found.pairs["high"] / found.pairs["low"])
    quiet = found.pairs["a"].isin([f"v{v}" for v in range(4, 12)])
    assert width[quiet].max() < width[~quiet].min()


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_verdicts_by_hand():
    nan = np.nan
    low = np.array([-0.3, 0.1, -0.02, 0.01, -0.2, -0.2, nan])
    high = np.array([-0.1, 0.3, 0.03, 0.03, 0.2, 0.02, nan])
    found = verdicts(low, high, low + 0.005, high - 0.005, margin=0.05)
    assert found.tolist() == [
        "better", "worse", "equivalent", "equivalent", "not resolved", "not resolved", "too few seeds",
    ]  # fmt: skip
    assert verdicts(low, high, low, high, None).tolist() == [
        "better", "worse", "not resolved", "worse", "not resolved", "not resolved", "too few seeds",
    ]  # fmt: skip


def test_the_lower_value_is_better_and_delta_is_a_ratio():
    steady = [10.0, 11.0, 12.1, 13.0, 14.2]
    values = {"one": steady, "two": [1.02 * value * (1 + 0.001 * (-1) ** i) for i, value in enumerate(steady)]}
    row = compare(table(values), Declared()).pairs.iloc[0]
    assert (row.a, row.b, row.verdict, row.resolved) == ("one", "two", "better", True)
    assert row.ratio == pytest.approx(1 / 1.02, rel=1e-3)
    assert compare(table(dict(reversed(values.items()))), Declared()).pairs.iloc[0].verdict == "worse"
    # Within ln(1 + δ) of each other, not within δ: ln(1.2) = 0.1823 ± 0.001, ln(1.205) = 0.1865, ln(1.195) = 0.1781.
    apart = {"one": steady, "two": [value * 1.2 / 1.02 for value in values["two"]]}
    within = compare(table(apart), Declared(None, 0.205)).pairs.iloc[0]
    assert (within.verdict, within.resolved) == ("equivalent", True)
    assert compare(table(apart), Declared(None, 0.195)).pairs.iloc[0].verdict == "better"


def test_families_and_baseline():
    random = np.random.default_rng(1)
    values = table({name: np.exp(random.normal(1, 0.05, 4)) for name in "abcdef"})
    found = compare(values, Declared("b", 0.05, {"left": ["a", "c", "d"], "right": ["e", "f"]}))
    pairs = found.pairs.groupby("family", sort=False).apply(lambda rows: list(rows["a"] + rows["b"]))
    assert pairs.to_dict() == {
        "against b": ["ab", "cb", "db", "eb", "fb"], "left": ["ac", "ad", "cd"], "right": ["ef"],
    }  # fmt: skip
    # Each family has its own quantile, all one residual deviation on 15 degrees of freedom.
    assert found.critical["left"] == pytest.approx(stats.studentized_range.ppf(0.95, 3, 15) / np.sqrt(2), abs=1e-4)
    assert found.critical["right"] == pytest.approx(stats.t.ppf(0.975, 15), abs=1e-4)
    assert found.critical["against b"] == pytest.approx(2.82, abs=6e-3)  # Dunnett (1964): 5 treatments, df 15
    alone = compare(values, Declared(None, 0.05, {"right": ["e", "f"]}))
    assert list(alone.pairs["a"] + alone.pairs["b"]) == ["ef"]


# --- tables that are hardly there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ({}, 0),
        ({"a": [1.0, 2.0]}, 0),
        ({"a": [1.0], "b": [2.0]}, 1),
        ({"a": [1.0, None, None], "b": [None, 2.0, 3.0]}, 1),
        ({"a": [None, None], "b": [1.0, 2.0]}, 1),
    ],
)
def test_too_few_seeds(values, rows):
    frame = table(values)
    if "a" in values and None in values["a"]:  # a cell that is listed without a value has not finished
        frame = pd.concat([frame, pd.DataFrame([{"parameterization": "a", "seed": 9, "value": np.nan}])])
    found = compare(frame, Declared("a" if rows else None, 0.05))
    assert list(found.pairs["verdict"]) == ["too few seeds"] * rows
    assert not found.pairs["resolved"].any()
    assert found.pairs[["low", "high", "p_value", "resolvable", "seeds_needed"]].isna().all(axis=None)
    assert "not known" in found.why


def test_a_pair_without_common_seeds_says_so_and_the_others_are_judged():
    values = {"a": [1.0, 1.1, None, None], "b": [None, 1.2, 1.3, 1.4], "c": [1.0, 1.2, 1.3, 1.2]}
    found = compare(table(values), Declared()).pairs.set_index(["a", "b"])
    assert found.loc[("a", "b"), "verdict"] == "too few seeds"
    assert found.loc[("a", "b"), "ratio"] == pytest.approx(1.1 / 1.2)
    assert found["seeds"].tolist() == [1, 2, 3]
    assert found.loc[[("a", "c"), ("b", "c")], "low"].notna().all()


def test_values_that_are_not_positive_are_compared_as_differences():
    values = {"a": [-0.001, 0.002, 0.001], "b": [0.010, 0.014, 0.012]}
    found = compare(table(values), Declared(None, 0.05))
    row = found.pairs.iloc[0]
    assert (found.scale, row.verdict, math.isnan(row.equivalence_seeds)) == ("difference", "better", True)
    assert row.ratio == pytest.approx(-0.0113333, abs=1e-6)
    assert "differences" in found.why
    assert compare(table({"a": [0.0, 2.0, 1.0], "b": [1.0, 2.0, 3.0]}), Declared()).scale == "difference"
    same = compare(table({"a": [-1.0, 2.0, 1.0], "b": [-1.0, 2.0, 1.0]}), Declared(None, 0.05)).pairs.iloc[0]
    assert same.verdict == "not resolved"


def test_values_that_are_all_equal():
    same = compare(table({name: [3.3, 4.7, 5.9] for name in "abc"}), Declared()).pairs
    assert set(same["verdict"]) == {"not resolved"} and (same["p_value"] == 1).all()
    values = {"a": [3.3, 4.7, 5.9], "b": [3.3 * 1.1, 4.7 * 1.1, 5.9 * 1.1]}
    shifted = compare(table(values), Declared(None, 0.05)).pairs.iloc[0]
    assert (shifted.verdict, shifted.p_value) == ("better", 0)
    assert (
        compare(table({name: [3.3, 4.7, 5.9] for name in "abc"}), Declared(None, 0.05))
        .pairs["verdict"]
        .eq("equivalent")
        .all()
    )


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(UserError, match="two values for a, seed 0"):
        compare(table({"a": [1.0]} | {"b": [1.0]}).pipe(lambda rows: pd.concat([rows, rows])), Declared())
    with pytest.raises(UserError, match="above 0"):
        compare(table({"a": [1.0]}), Declared(None, 0.0))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, np.nan, 0.03]), [0.03, 0.06, np.nan, 0.06])
    assert holm([]).size == 0
