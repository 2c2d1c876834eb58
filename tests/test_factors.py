"""Effects of factors: against closed forms, statsmodels' own tables and a known truth; quick (seconds)."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from targetwise.errors import UserError
from targetwise.inference.contrasts import Independent, fit, sidak, tukey
from targetwise.inference.factors import _Design, factors
from targetwise.inference.quantiles import critical

TARGETS, WEIGHTINGS = ("epsilon", "v", "x0"), ("constant", "snr")


def crossed(seeds, effects=None, noise=None, without=(), targets=TARGETS, weightings=WEIGHTINGS):
    """Return the cells of targets × weightings; ``effects`` gives ln(value) of a combination, ``noise`` its error."""
    rows = []
    for target, weighting, seed in itertools.product(targets, weightings, range(seeds)):
        if (target, weighting) in without or (target, weighting, seed) in without:
            continue
        y = (effects or {}).get((target, weighting), 3.0) + 0.2 * seed + (noise() if noise else 0.0)
        rows.append((f"{target}_{weighting}", seed, target, weighting, math.exp(y)))
    return pd.DataFrame(rows, columns=["parameterization", "seed", "target", "weighting", "value"])


def scattered(seed, deviation=0.05):
    random = np.random.default_rng(seed)
    return lambda: random.normal(0, deviation)


def row(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


# --- closed forms


def test_a_two_by_two_by_hand():
    """Means 0, 1, 2, 4 in ln; deviations ±d in a pattern that neither seeds nor combinations share."""
    d = 0.1
    means = {("a", "p"): 0.0, ("a", "q"): 1.0, ("b", "p"): 2.0, ("b", "q"): 4.0}
    signs = {("a", "p"): 1, ("a", "q"): -1, ("b", "p"): -1, ("b", "q"): 1}
    rows = [
        (f"{x}{y}", seed, x, y, math.exp(mean + signs[x, y] * d * (-1) ** seed))
        for (x, y), mean in means.items()
        for seed in (0, 1)
    ]
    found = factors(
        pd.DataFrame(rows, columns=["parameterization", "seed", "one", "other", "value"]), ["one", "other"]
    )
    assert found.df == 3 and found.scale == "ratio" and not found.notes
    assert found.deviation == pytest.approx(math.sqrt(8 * d**2 / 3))
    # a/b over p and q: exp(((0 − 2) + (1 − 4))/2); its error is s·√(1/2 · 1/2 · 2 / 2 …) = s·√(4 · ¼ / 2).
    half = stats.t.ppf(0.975, 3) * found.deviation * math.sqrt(0.5)
    effect = row(found.effects, factor="one")
    assert (effect.a, effect.b, effect.combinations) == ("a", "b", 2)
    assert [math.log(x) for x in (effect.ratio, effect.low, effect.high)] == pytest.approx(
        [-2.5, -2.5 - half, -2.5 + half], abs=1e-6
    )
    interaction = row(found.interactions, term="one × other")
    assert math.log(interaction.ratio) == pytest.approx((0 - 2) - (1 - 4), abs=1e-9)
    assert math.log(interaction.high / interaction.low) / 2 == pytest.approx(2 * half, abs=1e-6)
    shares = {"one": 2.5**2 * 2, "other": 1.5**2 * 2, "one × other": 0.5**2 * 2}
    for name, squares in shares.items():
        term = row(found.terms, term=name)
        assert term.share == pytest.approx(squares / (squares + 8 * d**2))
        assert term.f == pytest.approx(squares / (8 * d**2 / 3))
        assert term.p_value == pytest.approx(stats.f.sf(term.f, 1, 3))


def test_two_levels_are_a_paired_t_test_where_there_is_nothing_else():
    values = crossed(5, noise=scattered(1), targets=("v", "x0"), weightings=("constant",))
    found = factors(values, ["target"])
    logs = values.assign(y=np.log(values["value"])).pivot_table(index="seed", columns="target", values="y")
    expected = stats.ttest_rel(logs["v"], logs["x0"])
    assert row(found.terms, term="target").p_value == pytest.approx(expected.pvalue)
    effect = row(found.effects, factor="target")
    interval = expected.confidence_interval(0.95)
    assert [math.log(effect.low), math.log(effect.high)] == pytest.approx([interval.low, interval.high], abs=1e-6)
    assert effect.resolved == (expected.pvalue < 0.05)


def test_three_levels_are_tukeys_comparison_of_a_block_design():
    values = crossed(4, noise=scattered(2), weightings=("constant",))
    found = factors(values, ["target"])
    fitted = smf.ols("np.log(value) ~ C(seed) + C(target)", values).fit()
    half = stats.studentized_range.ppf(0.95, 3, 6) / math.sqrt(2) * math.sqrt(fitted.mse_resid * 2 / 4)
    for effect in found.effects.itertuples():
        assert math.log(effect.high / effect.low) / 2 == pytest.approx(half, rel=1e-5)
    levels = found.levels
    assert np.log(levels["ratio"]).sum() == pytest.approx(0, abs=1e-12)
    means = np.log(values["value"]).groupby(values["target"]).mean()
    assert np.log(levels["ratio"]).tolist() == pytest.approx((means - means.mean())[list(TARGETS)].tolist())


@pytest.mark.parametrize("without", [(), [("v", "snr", 0), ("x0", "constant", 2)]], ids=["whole", "cells missing"])
def test_terms_are_those_of_statsmodels_type_two(without):
    """Where every combination has a value, statsmodels' own type II table is of the same models."""
    effects = {
        (t, w): 0.1 * i + 0.07 * j + 0.05 * i * j for i, t in enumerate(TARGETS) for j, w in enumerate(WEIGHTINGS)
    }
    values = crossed(4, effects, scattered(3), without)
    found = factors(values, ["target", "weighting"])
    fitted = smf.ols("np.log(value) ~ C(seed) + C(target) * C(weighting)", values).fit()
    expected = anova_lm(fitted, typ=2)
    names = {"target": "C(target)", "weighting": "C(weighting)", "target × weighting": "C(target):C(weighting)"}
    assert found.terms["term"].tolist() == list(names)
    assert found.df == fitted.df_resid
    for ours, theirs in names.items():
        own, other = row(found.terms, term=ours), expected.loc[theirs]
        assert own.df == other["df"]
        assert own.f == pytest.approx(other["F"]) and own.p_value == pytest.approx(other["PR(>F)"])
        error = expected.loc["Residual", "sum_sq"]
        assert own.share == pytest.approx(other["sum_sq"] / (other["sum_sq"] + error))


def test_effects_of_a_complete_design_are_ratios_of_marginal_means():
    values = crossed(3, noise=scattered(4))
    found = factors(values, ["target", "weighting"])
    y = np.log(values["value"])
    for name in ("target", "weighting"):
        means = y.groupby(values[name]).mean()
        for effect in found.effects[found.effects["factor"] == name].itertuples():
            assert math.log(effect.ratio) == pytest.approx(means[effect.a] - means[effect.b])
    assert len(found.effects) == 3 + 1 and len(found.interactions) == 3


# --- what lacks


def test_a_combination_that_was_not_run_costs_what_it_would_have_told_and_nothing_else():
    effects = {(t, w): i + 10 * j for i, t in enumerate(TARGETS) for j, w in enumerate(WEIGHTINGS)}
    found = factors(crossed(3, effects, without=[("x0", "snr")]), ["target", "weighting"])
    assert found.terms[["term", "df"]].to_numpy().tolist() == [
        ["target", 2],
        ["weighting", 1],
        ["target × weighting", 1],
    ]
    assert "5 of 6 combinations have values" in found.notes[0]
    assert row(found.effects, a="epsilon", b="v").combinations == 2
    assert row(found.effects, a="v", b="x0").combinations == 1
    assert math.log(row(found.effects, a="v", b="x0").ratio) == pytest.approx(-1)
    assert math.log(row(found.effects, factor="weighting").ratio) == pytest.approx(-10)
    assert len(found.interactions) == 1
    assert found.levels[found.levels["factor"] == "target"]["combinations"].tolist() == [1, 1, 1]


def test_a_pair_that_shares_no_combination_is_told_to_have_no_effect():
    without = [("epsilon", "snr"), ("x0", "constant")]
    found = factors(crossed(3, noise=scattered(5), without=without), ["target", "weighting"])
    lost = row(found.effects, a="epsilon", b="x0")
    assert lost.combinations == 0 and math.isnan(lost.ratio) and not lost.resolved
    assert row(found.effects, a="epsilon", b="v").combinations == 1
    assert found.interactions.empty
    assert any(
        "cannot tell these apart from other effects" in note and "target × weighting" in note for note in found.notes
    ) or ("target × weighting" not in found.terms["term"].tolist())


def test_missing_cells_are_compared_with_the_seeds_that_others_have():
    """Without noise the seed's own shift must not leak into an effect, whatever is missing."""
    effects = {(t, w): 0.3 * i - 0.2 * j for i, t in enumerate(TARGETS) for j, w in enumerate(WEIGHTINGS)}
    values = crossed(4, effects, without=[("v", "constant", 3), ("v", "snr", 0), ("x0", "snr", 1)])
    found = factors(values, ["target", "weighting"])
    assert math.log(row(found.effects, a="epsilon", b="v").ratio) == pytest.approx(-0.3, abs=1e-9)
    assert math.log(row(found.effects, factor="weighting").ratio) == pytest.approx(0.2, abs=1e-9)
    assert math.log(row(found.interactions, a="v", b="x0").ratio) == pytest.approx(0, abs=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_a_factor_that_says_nothing_is_named_in_one_line():
    values = crossed(3, noise=scattered(6)).assign(path="linear", paired=lambda frame: frame["target"].str.upper())
    found = factors(values, ["target", "weighting", "path"])
    assert found.notes == ["path is linear in every finished cell, so its effect cannot be told."]
    assert set(found.terms["term"]) == {"target", "weighting", "target × weighting"}
    found = factors(values, ["target", "weighting", "paired"])
    assert found.notes == [
        "target changes only together with weighting or paired in the finished cells, so its effect cannot be told."
    ]
    nothing = factors(values[values["seed"] < 0], ["target"])
    assert nothing.effects.empty and nothing.terms.empty and "none in every finished cell" in nothing.notes[0]


def test_factors_that_do_not_tell_variants_apart_are_refused():
    values = crossed(3, noise=scattered(7))
    with pytest.raises(UserError, match="the factors target cannot tell epsilon_constant and epsilon_snr apart"):
        factors(values, ["target"])
    with pytest.raises(UserError, match="'wheight' is no column of the table, so it can be no factor"):
        factors(values, ["target", "wheight"])


def test_one_seed_gives_effects_and_no_intervals():
    found = factors(crossed(1, noise=scattered(8)), ["target", "weighting"])
    assert found.df == 0 and math.isnan(found.deviation)
    assert found.effects["ratio"].notna().all() and found.effects["low"].isna().all()
    assert not found.effects["resolved"].any() and found.terms["p_value"].isna().all()
    assert found.notes == [
        "With one value of each combination there is no error estimate, and so there are no intervals."
    ]


def test_levels_are_written_as_in_the_configuration():
    values = crossed(2, noise=scattered(9), weightings=("constant",))
    values["rate"] = values["target"].map({"epsilon": 2e-4, "v": 3.0, "x0": math.nan})
    assert factors(values, ["rate"]).levels["level"].tolist() == ["0.0002", "3", "none"]
    values["flag"] = values["target"].map({"epsilon": True, "v": False, "x0": None})
    assert factors(values, ["flag"]).levels["level"].tolist() == ["true", "false", "none"]


def test_values_at_or_below_zero_are_compared_by_difference():
    values = crossed(3, noise=scattered(10))
    values["value"] = np.log(values["value"]) - 3.1
    assert (values["value"] < 0).any()
    found = factors(values, ["target", "weighting"])
    assert found.scale == "difference"
    means = values.groupby("target")["value"].mean()
    assert row(found.effects, a="v", b="x0").ratio == pytest.approx(means["v"] - means["x0"])


# --- critical values


def test_critical_values_are_those_of_published_tables():
    """Tukey: q(0.95; 3, 10) = 3.877. Studentized maximum modulus, Stoline & Ury 1979: 2.829 for k = 3 and 10 df."""
    assert tukey(3, 10) * math.sqrt(2) == pytest.approx(3.877, abs=6e-4)
    assert sidak(1, 7) == pytest.approx(stats.t.ppf(0.975, 7), abs=1e-6)
    known = critical(Independent(3), 10, 0.95)
    normal = np.random.default_rng(0).normal(size=(400_000, 3))
    scale = np.sqrt(np.random.default_rng(1).chisquare(10, 400_000) / 10)
    assert (np.abs(normal).max(1) / scale <= known).mean() == pytest.approx(0.95, abs=4 * math.sqrt(0.0475 / 4e5))
    assert sidak(3, 10) < stats.t.ppf(1 - 0.05 / 6, 10), "Bonferroni's is larger"
    assert math.isnan(sidak(3, 0)) and math.isnan(tukey(3, 0))


# --- a known truth

TRUE = {("epsilon", "constant"): 3.0, ("epsilon", "snr"): 3.1, ("v", "constant"): 2.9, ("v", "snr"): 2.8}
TRUE |= {("x0", "constant"): 3.3, ("x0", "snr"): 3.2}


@pytest.mark.parametrize("without", [(), [("x0", "snr"), ("v", "snr", 0)]], ids=["whole", "missing"])
def test_intervals_hold_the_truth_as_often_as_they_claim(without):
    """All pairs of a factor together, and all interactions together; 4 Monte-Carlo errors of 600 studies."""
    random, runs = np.random.default_rng(11), 600
    names, held = ["target", "weighting"], {"target": 0, "weighting": 0, "interactions": 0}
    cells = crossed(3, TRUE, None, without)
    points = list(zip(cells["target"], cells["weighting"], strict=True))
    order = list(dict.fromkeys(points))
    for _ in range(runs):
        values = cells["value"] * np.exp(random.normal(0, 0.1, len(cells)))
        design = _Design(names, order, fit([str(order.index(point)) for point in points], cells["seed"], values))
        effects = design.effects()
        for name in names:
            own = effects[effects["factor"] == name].itertuples()
            held[name] += all(each.low <= truth(each, name, without) <= each.high for each in own)
        tetrads = design.interactions().itertuples()
        held["interactions"] += all(each.low <= tetrad(each) <= each.high for each in tetrads)
    error = math.sqrt(0.05 * 0.95 / runs)
    for name, count in held.items():
        assert count / runs > 0.95 - 4 * error, (name, count / runs)
    if not without:  # there Tukey's intervals are exact, and t's for the two weightings
        assert held["target"] / runs < 0.95 + 4 * error and held["weighting"] / runs < 0.95 + 4 * error


def tetrad(each):
    return math.exp(TRUE[each.a, each.c] - TRUE[each.b, each.c] - TRUE[each.a, each.d] + TRUE[each.b, each.d])


def truth(effect, name, without):
    others = WEIGHTINGS if name == "target" else TARGETS
    at = (lambda level, other: (level, other)) if name == "target" else (lambda level, other: (other, level))
    shared = [o for o in others if not {at(effect.a, o), at(effect.b, o)} & set(without)]
    return math.exp(np.mean([TRUE[at(effect.a, o)] - TRUE[at(effect.b, o)] for o in shared]))


def test_a_term_without_effect_is_significant_in_one_of_twenty():
    random, runs = np.random.default_rng(12), 100
    ps = [
        factors(crossed(3, None, lambda: random.normal(0, 0.1)), ["target", "weighting"]).terms["p_value"].tolist()
        for _ in range(runs)
    ]
    rates = (np.array(ps) < 0.05).mean(0)
    assert (np.abs(rates - 0.05) < 4 * math.sqrt(0.0475 / runs)).all(), rates


def test_points_that_no_seed_links_have_no_contrast():
    found = fit(["a", "a", "b", "b", "c"], [0, 1, 2, 3, 0], [1.0, 2.0, 3.0, 5.0, 4.0])
    apart = found.contrast(np.array([1.0, -1.0, 0.0]), 2.0)
    assert all(math.isnan(each) for each in apart.values())
    assert found.contrast(np.array([1.0, 0.0, -1.0]), 2.0)["ratio"] == pytest.approx(1 / 4)
    assert math.isnan(found.mean(0))
