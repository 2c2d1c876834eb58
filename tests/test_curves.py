"""The metric over an axis: means, bands, and what may be the best; against closed forms and a known truth."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference.contrasts import cell_means, sidak
from targetwise.inference.curves import curves

RATES = [1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3]


def swept(seeds=4, truth=lambda _: 0.0, noise=lambda: 0.0, xs=RATES, without=(), **more):
    """Return cells over learning rates, with ln(value) = truth + the seed's shift + noise."""
    rows = [
        {
            "parameterization": f"v_{x}",
            "setting": "tiny",
            "seed": seed,
            "rate": x,
            "y": truth(x) + 0.3 * seed + noise(),
        }
        for x in xs
        for seed in range(seeds)
        if (x, seed) not in without
    ]
    frame = pd.DataFrame(rows).assign(target="v", **more)
    return frame.assign(value=np.exp(frame["y"]))


def gaussian(seed, deviation=0.05):
    random = np.random.default_rng(seed)
    return lambda: random.normal(0, deviation)


def only(found):
    assert len(found) == 1
    return found[0]


def parabola(x, lowest=5e-4):
    return 0.2 * math.log(x / lowest) ** 2


# --- closed forms


def test_means_bands_and_comparisons_of_a_complete_curve():
    values = swept(noise=gaussian(1))
    curve = only(curves(values, "rate", ["rate", "target"]))
    y = values.pivot_table(index="seed", columns="rate", values="y").to_numpy()
    residuals = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    deviation = math.sqrt((residuals**2).sum() / 12)
    assert (curve.df, curve.logarithmic, curve.scale, curve.group, curve.lacking) == (12, True, "ratio", {}, [])
    assert curve.deviation == pytest.approx(deviation)
    points = curve.points
    assert points["x"].tolist() == RATES and points["seeds"].tolist() == [4] * 5
    assert np.log(points["mean"]).tolist() == pytest.approx(y.mean(0).tolist())
    for low, high, critical in (
        ("low", "high", sidak(5, 12)),
        ("pointwise_low", "pointwise_high", stats.t.ppf(0.975, 12)),
    ):
        half = np.log(points[high] / points[low]) / 2
        assert half.tolist() == pytest.approx([critical * deviation / 2] * 5)
        assert np.log(points[high] * points[low]).tolist() == pytest.approx((2 * y.mean(0)).tolist())
    best = int(y.mean(0).argmin())
    assert curve.best == RATES[best]
    half = stats.studentized_range.ppf(0.95, 5, 12) * deviation / 2
    differences = y.mean(0) - y.mean(0)[best]
    assert np.log(points["against_best"]).tolist() == pytest.approx(differences.tolist(), abs=1e-12)
    others = [place for place in range(5) if place != best]
    ends = np.log(points["against_best_low"][others]).tolist()
    assert ends == pytest.approx((differences - half)[others].tolist(), abs=1e-6)
    assert curve.candidates == [x for x, gap in zip(RATES, differences, strict=True) if gap <= half]


def test_the_seeds_common_shift_widens_nothing():
    values = swept(noise=gaussian(2))
    shaken = values.assign(value=values["value"] * np.exp(5 * values["seed"]))
    one, other = only(curves(values, "rate", ["rate"])), only(curves(shaken, "rate", ["rate"]))
    assert other.deviation == pytest.approx(one.deviation)
    assert (other.points["high"] / other.points["low"]).tolist() == pytest.approx(
        (one.points["high"] / one.points["low"]).tolist()
    )


def test_a_missing_cell_bends_nothing():
    """Without noise the shape must be the truth's, although a seed that lacks shifts all other values."""
    curve = only(curves(swept(truth=parabola, without=[(RATES[2], 3), (RATES[0], 0)]), "rate", ["rate"]))
    logs = np.log(curve.points["mean"])
    assert (logs - logs[0]).tolist() == pytest.approx([parabola(x) - parabola(RATES[0]) for x in RATES])
    assert curve.points["seeds"].tolist() == [3, 4, 3, 4, 4] and curve.df == 18 - 8


@pytest.mark.parametrize(
    ("xs", "logarithmic"), [([1, 2, 3.9], False), ([1, 2, 4], True), ([0, 1, 100], False), ([-2, 1, 8], False)]
)
def test_the_axis_is_logarithmic_from_a_factor_of_four(xs, logarithmic):
    assert only(curves(swept(xs=xs), "rate", ["rate"])).logarithmic == logarithmic


# --- groups


def test_there_is_a_curve_for_all_that_differs_otherwise():
    two = pd.concat([swept(noise=gaussian(3)), swept(noise=gaussian(4)).assign(target="x0")])
    lone = swept(xs=[1e-3]).assign(target="epsilon")
    found = curves(pd.concat([two, lone]), "rate", ["target", "rate"])
    assert [curve.group for curve in found] == [{"target": "v"}, {"target": "x0"}], "one value makes no curve"
    alone = only(curves(two[two["target"] == "x0"], "rate", ["target", "rate"]))
    pd.testing.assert_frame_equal(found[1].points, alone.points)
    assert curves(lone, "rate", ["target", "rate"]) == []


def test_what_has_no_value_on_the_axis_is_on_no_curve():
    values = pd.concat([swept(noise=gaussian(5)), swept(xs=[math.nan]).assign(target="x0")])
    assert only(curves(values, "rate", ["rate"])).points["x"].tolist() == RATES


def test_what_did_not_finish_is_named_and_not_imputed():
    values = swept(noise=gaussian(6))
    values.loc[values["rate"] == RATES[4], "value"] = math.nan
    curve = only(curves(values, "rate", ["rate"]))
    assert curve.lacking == [RATES[4]] and curve.points["x"].tolist() == RATES[:4]
    nothing = only(curves(values.assign(value=math.nan), "rate", ["rate"]))
    assert nothing.points.empty and nothing.lacking == RATES and math.isnan(nothing.best)


@pytest.mark.parametrize(
    ("changes", "axis", "message"),
    [
        ({}, "rat", "'rat' is no column of the table, so there is no curve over it"),
        ({}, "target", "'target' holds 'v', which is no number"),
        ({"flag": True}, "flag", "'flag' holds 'True', which is no number"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(changes, axis, message):
    with pytest.raises(UserError, match=message):
        curves(swept(**changes), axis, ["rate", "target"])


# --- too little


def test_one_seed_gives_means_and_no_band():
    curve = only(curves(swept(1, noise=gaussian(7)), "rate", ["rate"]))
    assert curve.df == 0 and curve.points["mean"].notna().all() and curve.points["low"].isna().all()
    assert curve.candidates == RATES, "nothing is resolved"
    assert (
        math.isnan(curve.optimum.x) and curve.optimum.why == "There is no error estimate to test a parabola against."
    )


def test_values_without_a_common_seed_have_no_common_level():
    values = swept(4, noise=gaussian(8), xs=[1.0, 2.0], without=[(1.0, 2), (1.0, 3), (2.0, 0), (2.0, 1)])
    curve = only(curves(values, "rate", ["rate"]))
    assert curve.points["mean"].isna().all() and math.isnan(curve.best) and curve.candidates == [1.0, 2.0]


def test_values_at_or_below_zero_are_shown_as_they_are():
    values = swept(noise=gaussian(9))
    values["value"] = values["y"] - 0.5
    curve = only(curves(values, "rate", ["rate"]))
    assert curve.scale == "difference"
    assert curve.points["mean"].tolist() == pytest.approx(values.groupby("rate")["value"].mean().tolist())
    assert curve.points["against_best"].min() == 0


# --- the optimum


def test_the_lowest_point_of_a_parabola_is_found():
    curve = only(curves(swept(truth=parabola, noise=gaussian(10, 0.02)), "rate", ["rate"]))
    assert curve.optimum.low < 5e-4 < curve.optimum.high
    assert curve.optimum.x == pytest.approx(5e-4, rel=0.1)
    assert curve.optimum.why == "The lowest point of a parabola on a logarithmic axis."


def test_fiellers_interval_is_where_the_slope_is_not_resolved():
    """Its ends are the r with (p + 2qr)/se = ±t: refit around an end, and the slope there has |t| = t(0.975)."""
    values = swept(truth=parabola, noise=gaussian(11, 0.1), xs=[1e-4, 1.5e-4, 2e-4, 9e-4, 1.6e-3])
    curve = only(curves(values, "rate", ["rate"]))
    critical = stats.t.ppf(0.975, curve.df)
    blocks = np.eye(4)[values["seed"]]
    for end in (curve.optimum.low, curve.optimum.high):
        u = np.log(values["rate"].to_numpy() / end)
        design = np.column_stack([u, u**2, blocks])
        slope = np.linalg.lstsq(design, values["y"].to_numpy(), rcond=None)[0][0]
        error = curve.deviation * math.sqrt(np.linalg.inv(design.T @ design)[0, 0])
        assert abs(slope) / error == pytest.approx(critical, rel=1e-6)


@pytest.mark.parametrize(
    ("truth", "why"),
    [
        (lambda x: 0.5 * (x == RATES[2]), "A parabola on a logarithmic axis does not fit the values (p < 0.0001)"),
        (lambda _: 0.0, "That the curve has a lowest point among the measured values is not resolved."),
        (lambda x: -parabola(x), "That the curve has a lowest point among the measured values is not resolved."),
        (lambda x: parabola(x, 1e-2), "The lowest point of a parabola lies outside the measured values."),
    ],
    ids=["kink", "flat", "upside down", "outside"],
)
def test_where_there_is_no_optimum_to_tell_it_is_said_why(truth, why):
    optimum = only(curves(swept(truth=truth, noise=gaussian(12, 0.02)), "rate", ["rate"])).optimum
    assert math.isnan(optimum.x) and optimum.why.startswith(why)


def test_a_parabola_is_held_against_the_scatter_between_seeds():
    """By statsmodels' own comparison of the two models; the figure in the sentence is its p."""
    values = swept(truth=lambda x: 0.06 * (x == RATES[2]), noise=gaussian(15, 0.03))
    values["u"] = np.log(values["rate"])
    parabolic = smf.ols("y ~ C(seed) + u + I(u**2)", values).fit()
    _, expected, spare = smf.ols("y ~ C(seed) + C(rate)", values).fit().compare_f_test(parabolic)
    assert spare == 2 and 1e-4 < expected < 0.05
    why = only(curves(values, "rate", ["rate"])).optimum.why
    assert why == f"A parabola on a logarithmic axis does not fit the values (p = {expected:.2g})."


def test_three_values_are_too_few_for_a_parabola():
    assert only(curves(swept(xs=RATES[:3], noise=gaussian(13)), "rate", ["rate"])).optimum is None


# --- a known truth


@pytest.mark.parametrize(
    ("seeds", "without"), [(3, ()), (5, [(RATES[1], 0), (RATES[4], 2)])], ids=["3", "5, missing"]
)
def test_bands_and_candidates_hold_the_truth_as_often_as_they_claim(seeds, without):
    random, runs = np.random.default_rng(14), 500
    cells = swept(seeds, parabola, without=without)
    shift = 0.3 * (seeds - 1) / 2
    truth = np.array([math.exp(parabola(x) + shift) for x in RATES])
    lowest = RATES[int(np.argmin(truth))]
    held = dict.fromkeys(("band", "first", "best", "optimum"), 0)
    told = 0
    for _ in range(runs):
        curve = only(
            curves(cells.assign(value=cells["value"] * np.exp(random.normal(0, 0.1, len(cells)))), "rate", ["rate"])
        )
        points = curve.points
        held["band"] += bool(((points["low"] <= truth) & (truth <= points["high"])).all())
        held["first"] += bool(points["pointwise_low"][0] <= truth[0] <= points["pointwise_high"][0])
        held["best"] += lowest in curve.candidates
        if not math.isnan(curve.optimum.x):
            told += 1
            held["optimum"] += curve.optimum.low <= 5e-4 <= curve.optimum.high
    error = 4 * math.sqrt(0.05 * 0.95 / runs)
    assert held["band"] / runs > 0.95 - error and held["best"] / runs > 0.95 - error, held
    assert held["first"] / runs == pytest.approx(0.95, abs=error)
    if not without:
        assert held["band"] / runs < 0.95 + error, "exact where no cell is missing"
    assert told > runs / 2
    assert held["optimum"] / told > 0.95 - 4 * math.sqrt(0.05 * 0.95 / told), (held, told)


def test_cells_are_means_of_their_draws_and_count_only_whole():
    frame = pd.DataFrame(
        {
            "setting": "tiny",
            "parameterization": ["a", "a", "b", "b"],
            "seed": [0, 0, 0, 0],
            "draw": [0, 1, 0, 1],
            "status": ["finished", "finished", "finished", "missing"],
            "value": [1.0, 3.0, 2.0, math.nan],
            "target": ["v", "v", "x0", "x0"],
        }
    )
    (cell,) = cell_means(frame).itertuples()
    assert (cell.parameterization, cell.seed, cell.value, cell.target) == ("a", 0, 2.0, "v")
    assert cell_means(frame[frame["parameterization"] == "b"]).empty
