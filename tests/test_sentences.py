"""A comparison in words says what its numbers say: which is lower, by how much, and how sure that is."""

import itertools
from types import SimpleNamespace

import pandas as pd
import pytest

from targetwise.report.effects import named
from targetwise.report.sentences import Relations, heading, in_words, of_setting
from targetwise.report.words import at, percent, probability, some, spoken

NAN = float("nan")


def pair(verdict, ratio, low=NAN, high=NAN, **others):
    facts = {
        "family": None,
        "a": "v",
        "b": "x0",
        "seeds": 3,
        "ratio": ratio,
        "low": low,
        "high": high,
        "equivalence_low": NAN,
        "equivalence_high": NAN,
        "resolved": verdict in ("better", "worse"),
        "verdict": verdict,
        "resolvable": NAN,
        "seeds_needed": NAN,
    }
    return SimpleNamespace(**{**facts, **others})


def test_the_lower_one_comes_first_whichever_is_a():
    told = "v is below x0 by 20 % (95 % interval 10 % to 30 %, 3 seeds)"
    assert in_words(pair("better", 0.8, 0.7, 0.9), "ratio", 0.05) == told
    # x0 / v, of which each number is the inverse of the other way's.
    turned = pair("worse", 1 / 0.8, 1 / 0.9, 1 / 0.7, a="x0", b="v")
    assert in_words(turned, "ratio", 0.05) == told


def test_differences_of_what_has_no_ratio_are_told_in_its_unit():
    found = in_words(pair("worse", 0.5, 0.25, 0.75), "difference", None)
    assert found == "x0 is below v by 0.50 (95 % interval 0.25 to 0.75, 3 seeds)"
    found = in_words(pair("not resolved", -0.5, -1.5, 0.5), "difference", None)
    assert found == "v − x0 = −0.50 (95 % interval −1.50 to +0.50, 3 seeds)"


def test_equivalence_is_told_with_the_interval_that_shows_it():
    shown = pair("equivalent", 1.01, 0.97, 1.06, equivalence_low=0.98, equivalence_high=1.04)
    assert in_words(shown, "ratio", 0.05) == (
        "v and x0 are equivalent within 5 %: their ratio is 1.010 (90 % interval 0.980 to 1.040, 3 seeds)"
    )
    small = pair("equivalent", 1.02, 1.01, 1.03, equivalence_low=1.012, equivalence_high=1.028, resolved=True)
    assert in_words(small, "ratio", 0.05).endswith("; that x0 is lower is resolved")


def test_what_is_not_resolved_says_what_would_have_been():
    found = in_words(pair("not resolved", 0.9, 0.7, 1.2, resolvable=1.35, seeds_needed=14), "ratio", 0.05)
    assert found == (
        "v / x0 = 0.90 (95 % interval 0.70 to 1.20, 3 seeds); differences of 35 % or more would usually have been "
        "resolved; to resolve one of this size would take about 14 seeds"
    )
    # A study that has as many seeds already was unlucky, and needs none more.
    assert "about" not in in_words(pair("not resolved", 0.9, 0.7, 1.2, seeds_needed=3.0), "ratio", 0.05)
    # No number is promised where none is known.
    assert in_words(pair("not resolved", 1.0, 0.7, 1.2), "ratio", 0.05).endswith("3 seeds)")


@pytest.mark.parametrize(
    ("seeds", "ratio", "words"),
    [(0, NAN, "v / x0 (no seed in common)"), (1, 0.5, "v / x0 = 0.50 (one seed in common, so no interval)")],
)
def test_too_few_seeds_say_why_there_is_no_interval(seeds, ratio, words):
    assert in_words(pair("too few seeds", ratio, seeds=seeds), "ratio", 0.05) == words


def test_better_and_worse_are_one_heading():
    assert [heading(pair(verdict, 1.0)) for verdict in ("better", "worse", "equivalent")] == [
        "resolved",
        "resolved",
        "equivalent",
    ]


@pytest.mark.parametrize(("share", "words"), [(0.32, "32 %"), (-0.32, "32 %"), (0.0431, "4.3 %"), (0.0021, "0.21 %")])
def test_shares_are_written_for_reading(share, words):
    assert percent(share) == words


def setting(means, verdicts, *, baseline=None, families=None, smallest=0.05, diverged=()):
    """Return the sentence of a setting with these means, lowest first, and verdicts by (a, b)."""
    summary = pd.DataFrame(
        [
            {"parameterization": name, "mean": mean, "seeds": 3, "diverged": int(name in diverged), "missing": 0}
            for name, mean in means.items()
        ]
    )
    pairs = pd.DataFrame([vars(pair(verdict, means[a] / means[b], a=a, b=b)) for (a, b), verdict in verdicts.items()])
    declared = {"baseline": baseline, "smallest_difference": smallest, "families": families or {}}
    return of_setting(summary, summary, pairs, Relations(pairs), "FID", declared)


ABC = {"a": 1.0, "b": 2.0, "c": 3.0}


def test_one_that_is_below_all_others_leads():
    found = setting(ABC, {("a", "b"): "better", ("c", "a"): "worse", ("b", "c"): "not resolved"})
    assert found == (
        "a (1.00) gives the lowest FID, and its differences from b (2.00) and c (3.00) are resolved over 3 seeds."
    )


def test_equivalent_ones_lead_together():
    found = setting(ABC, {("a", "b"): "equivalent", ("a", "c"): "better", ("b", "c"): "better"})
    assert found == (
        "a (1.00) and b (2.00) give the lowest FID: they are equivalent within 5 %, and their differences from "
        "c (3.00) are resolved."
    )
    # Not if one of them is not shown to be below the rest.
    found = setting(ABC, {("a", "b"): "equivalent", ("a", "c"): "better", ("b", "c"): "not resolved"})
    assert found == (
        "The lowest FID is that of a (1.00) or b (2.00): which of them is not certain. "
        "The other one is shown to be higher than at least one of these."
    )


def test_those_that_may_be_the_lowest_are_named():
    """Whatever is shown to be above another is not the lowest; with four at hand, by hand."""
    four = {**ABC, "d": 4.0}
    told = {("a", "b"): "not resolved", ("a", "c"): "not resolved", ("a", "d"): "better"}
    found = setting(four, {**told, ("b", "c"): "better", ("b", "d"): "not resolved", ("c", "d"): "not resolved"})
    assert found == (
        "The lowest FID is that of a (1.00) or b (2.00): which of them is not certain. "
        "The other 2 are each shown to be higher than at least one of these."
    )
    # a is below b and b below c, so that only a is left, although a and c are not told apart.
    found = setting(ABC, {("a", "b"): "better", ("a", "c"): "not resolved", ("b", "c"): "better"})
    assert found == "a (1.00) gives the lowest FID: the other 2 are each shown to be higher than another."
    found = setting(ABC, {("a", "b"): "equivalent", ("a", "c"): "not resolved", ("b", "c"): "not resolved"})
    assert found.startswith("No parameterization is shown to have the lowest FID: some are equivalent, and how")


def test_large_ratios_are_factors():
    """Of 0.0029 (0.0013 to 0.0066) percentages would say 100 % (99 % to 100 %)."""
    found = in_words(pair("better", 0.0029, low=0.00126, high=0.00658), "ratio", 0.05)
    assert found == "v is below x0 by a factor of 344.8 (95 % interval 152.0 to 793.7, 3 seeds)"
    found = in_words(pair("worse", 20.0, low=12.0, high=40.0), "ratio", 0.05)
    assert found == "x0 is below v by a factor of 20.00 (95 % interval 12.00 to 40.00, 3 seeds)"
    assert "differences by a factor of 17.34 or more would" in in_words(
        pair("not resolved", 0.5, low=0.01, high=9.0, resolvable=17.34), "ratio", 0.05
    )


def test_all_may_be_equivalent():
    found = setting(ABC, dict.fromkeys([("a", "b"), ("a", "c"), ("b", "c")], "equivalent"))
    assert found == "a (1.00), b (2.00) and c (3.00) are all equivalent in FID within 5 %."


def test_nothing_resolved_is_not_called_equal():
    found = setting(ABC, dict.fromkeys([("a", "b"), ("a", "c"), ("b", "c")], "not resolved"))
    assert "every interval includes 1, which does not show that they are equal" in found


def test_a_winner_that_diverged_says_so():
    found = setting(ABC, {("a", "b"): "better", ("a", "c"): "better", ("b", "c"): "better"}, diverged=["a"])
    assert found.endswith("; but 1 of its 4 seeds diverged.")


def test_against_a_baseline_each_side_is_listed():
    found = setting(
        {**ABC, "d": 4.0}, {("a", "b"): "better", ("c", "b"): "worse", ("d", "b"): "not resolved"}, baseline="b"
    )
    assert found == (
        "Compared with the baseline b (2.00), FID is lower with a (1.00); not shown to differ with d (4.00); higher "
        "with c (3.00). The others were not compared with each other: that a (1.00) has the lowest mean "
        "is not a verdict."
    )


def test_families_are_told_one_by_one():
    families = {"near": ["a", "b"], "far": ["c", "d"]}
    found = setting({**ABC, "d": 4.0}, {("a", "b"): "better", ("d", "c"): "worse"}, families=families)
    assert found == (
        "Among near: a (1.00) gives a lower FID than b (2.00), and the difference is resolved over 3 seeds. "
        "Among far: c (3.00) gives a lower FID than d (4.00), and the difference is resolved over 3 seeds."
    )


def test_of_many_names_only_the_first_are_listed():
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c, d and e"
    assert some(list("abcdef")) == "a, b, c and 3 others"
    found = setting(
        {name: place + 1.0 for place, name in enumerate("abcdefgh")},
        {pair: "better" if pair[0] == "a" else "not resolved" for pair in itertools.combinations("abcdefgh", 2)},
    )
    assert found.startswith(
        "a (1.00) gives the lowest FID, and its differences from b (2.00), c (3.00), d (4.00) and "
    )
    assert "and 4 others are resolved" in found


@pytest.mark.parametrize(("p", "words"), [(0.034, "0.034"), (2e-7, "< 0.0001"), (NAN, "–")])
def test_a_small_p_is_only_bounded(p, words):
    assert probability(p) == words


def test_a_curve_is_not_named_by_what_its_target_says_already():
    assert named({"loss_space": "v", "target": "v", "scale": "tiny"}) == "target v, scale tiny"
    assert named({"loss_space": "v", "target": "x0"}) == "loss_space v, target x0"


def test_settings_are_listed_so_that_no_comma_has_two_meanings():
    assert at(["tiny", "large"]) == "at tiny and large"
    assert at(["tiny, few", "tiny, many", "large, few"]) == "at tiny with few and many, and at large with few"
    assert (spoken("tiny, few"), spoken("tiny")) == ("tiny with few", "tiny")
