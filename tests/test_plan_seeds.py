"""`targetwise plan-seeds`: the spread from the rows, the seeds from power, the hours from what is lacking."""

import copy
import math
import re

import numpy as np
import pandas as pd
import pytest
from helpers import EXAMPLE
from scipy import stats

from targetwise.errors import UserError
from targetwise.inference import power
from targetwise.operations import estimate as estimating
from targetwise.operations import plan_seeds, rates
from targetwise.operations.plan_seeds import Comparisons, comparisons, plan

NAMES = ("epsilon", "v", "x0")


def study(**declared):
    found = copy.deepcopy(EXAMPLE)
    found["comparison"] |= declared
    return found


def measured(seeds=3, deviation=0.05, shift=1.0, error=None, lacking=(), names=NAMES):
    """Return a table in which ln(value) has exactly this residual deviation, around any shifts of seeds."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(len(names), seeds))
    raw -= raw.mean(0) + raw.mean(1, keepdims=True) - raw.mean()
    df = (len(names) - 1) * (seeds - 1)
    residuals = raw * deviation * math.sqrt(df / (raw**2).sum()) if df else raw
    rows = []
    for place, name in enumerate(names):
        for seed in range(seeds):
            value = math.exp(3 + 0.1 * place + shift * seed + residuals[place, seed])
            there = (name, seed) not in lacking
            rows.append(
                {
                    "setting": "tiny",
                    "scale": "tiny",
                    "parameterization": name,
                    "seed": seed,
                    "draw": 0,
                    "status": "finished" if there else "missing",
                    "value": value if there else math.nan,
                    "error": math.nan if error is None or not there else error * value,
                }
            )
    frame = pd.DataFrame(rows)
    return frame if error is not None else frame.drop(columns="error")


def line(lines):
    """Return the cells of the table's one row."""
    (row,) = [each for each in lines if each.startswith("tiny  ")]
    return re.split(" {2,}", row)


@pytest.fixture
def hours(monkeypatch):
    """Let a cell take half an hour."""

    class Scale:
        name, cell = "tiny", 1800.0

    class Found:
        scales, kind, device, grounds = [Scale], "cuda", "a GPU", ["record: here.json"]

    monkeypatch.setattr(estimating, "estimate", lambda *_: Found)
    monkeypatch.setattr(rates, "newest_record", lambda: "here.json")


def test_the_spread_is_what_seeds_do_not_share(hours):
    """The deviation by construction 5 %, whatever seeds shift; its interval by χ² with 4 degrees of freedom."""
    for shift in (0.0, 3.0):
        setting, spread, seeds, *_ = line(plan(study(), measured(shift=shift)))
        assert (setting, seeds) == ("tiny", "3")
        low, high = (5 * math.sqrt(4 / stats.chi2.ppf(tail, 4)) for tail in (0.95, 0.05))
        assert spread == f"5 % ({low:.2g}–{high:.2g} %)"


def test_seeds_are_those_of_the_power_of_a_design(hours):
    _, _, _, resolve, _, equal, _ = line(plan(study(), measured(), difference=0.07))
    low, high = (0.05 * math.sqrt(4 / stats.chi2.ppf(tail, 4)) for tail in (0.95, 0.05))
    for told, of in ((resolve, power.seeds_to_resolve), (equal, power.seeds_to_show_equivalence)):
        expected = [of(1.07, deviation, 3, False) for deviation in (0.05, low, high)]
        assert told == "{} ({}–{})".format(*expected)


def test_seeds_resolve_what_they_promise():
    """An independent simulation: with the seeds that are told 80 % of studies resolve it, with one less fewer do."""
    ratio, deviation, runs = 1.08, 0.05, 4000
    seeds = Comparisons(3, baseline=False).to_resolve(ratio, deviation)
    assert rate(seeds, ratio, deviation, runs) > 0.8 - 4 * math.sqrt(0.16 / runs)
    assert rate(seeds - 1, ratio, deviation, runs) < 0.8 + 4 * math.sqrt(0.16 / runs)


def rate(seeds, ratio, deviation, runs):
    random = np.random.default_rng(1)
    y = random.normal(0, deviation, (runs, 3, seeds)) + np.array([math.log(ratio), 0.0, 0.0])[:, None]
    residuals = y - y.mean(1, keepdims=True) - y.mean(2, keepdims=True) + y.mean((1, 2), keepdims=True)
    df = 2 * (seeds - 1)
    error = np.sqrt((residuals**2).sum((1, 2)) / df * 2 / seeds)
    half = stats.studentized_range.ppf(0.95, 3, df) / math.sqrt(2)
    return (np.abs(y[:, 0].mean(1) - y[:, 1].mean(1)) > half * error).mean()


def test_a_baseline_needs_fewer_seeds_and_a_family_its_own():
    every = Comparisons(10, baseline=False).to_resolve(1.05, 0.05)
    assert Comparisons(10, baseline=True).to_resolve(1.05, 0.05) < every
    assert comparisons(study()) == [Comparisons(3, False)]
    assert comparisons(study(baseline="v")) == [Comparisons(3, True)]
    both = study(baseline="v", families={"two": ["v", "x0"]})
    assert comparisons(both) == [Comparisons(3, True), Comparisons(2, False)]


def test_the_most_demanding_of_what_is_declared_counts(hours):
    both = line(plan(study(baseline="v", families={"all": list(NAMES)}), measured(), difference=0.07))
    assert both == line(plan(study(), measured(), difference=0.07))
    less = line(plan(study(baseline="v"), measured(), difference=0.03))
    assert int(less[3].split()[0]) < int(line(plan(study(), measured(), difference=0.03))[3].split()[0])


def test_hours_are_those_of_the_cells_that_lack(hours):
    """Half an hour each: of 3 variants with n seeds, what is finished is not paid again."""
    frame = measured(lacking=[("v", 2), ("x0", 1), ("x0", 2)])
    _, _, seeds, resolve, more, *_ = line(plan(study(), frame, deviation=0.05, difference=0.05))
    assert seeds == "1 to 3"
    assert float(more) == (3 * int(resolve) - 6) / 2
    *_, resolve, more, equal, again = line(plan(study(), measured(), deviation=0.001, difference=0.05))
    assert (resolve, more, equal, again) == ("2", "0", "2", "0")


def test_without_a_record_the_hours_are_not_known_and_the_seeds_are(project):
    lines = plan(study(), measured())
    assert line(lines)[4] == "?" and lines[-1].startswith("hours: not known: ")


def test_the_difference_is_the_studys_unless_another_is_asked_for(hours):
    assert "a difference of 10 %, with 80 % power" in plan(study(), measured())[0]
    assert "a difference of 4 %" in plan(study(), measured(), difference=0.04)[0]
    assert plan(study(), measured())[0].startswith("study digits: 3 variants, each with each;")
    against = plan(study(baseline="v", families={"two": ["v", "x0"]}), measured())[0]
    assert against.startswith("study digits: 2 variants against v, the 2 of two with each other;")


def test_a_spread_that_is_assumed_has_no_interval(hours):
    lines = plan(study(), measured(seeds=1), deviation=0.03)
    assert line(lines)[1] == "3 %" and "(" not in " ".join(line(lines))
    assert lines[-2].endswith("assumed")
    over = line(plan(study(), measured(), deviation=0.9, difference=0.01))
    assert over[3:] == ["over 1,000", "?", "over 1,000", "?"]


def test_what_more_samples_would_save(hours):
    """Errors of 4 % make 64 % of the variance of a deviation of 5 %; a quarter of that is left of 4 times as many."""
    (told,) = [each for each in plan(study(), measured(error=0.04), difference=0.05) if "finite samples" in each]
    left = 0.05 * math.sqrt(1 - 0.64 * 0.75)
    resolve, equal = (of(1.05, left, 3, False) for of in (power.seeds_to_resolve, power.seeds_to_show_equivalence))
    assert told == (
        f"tiny: finite samples are at most 64 % of the variance: with 4 times as many (2,048), at least {resolve} to "
        f"resolve and {equal} to show equivalence"
    )
    assert any("rows have no standard errors" in each for each in plan(study(), measured()))


@pytest.mark.parametrize(
    ("declared", "frame", "options", "message"),
    [
        (
            {},
            {"seeds": 1},
            {},
            "tiny: fewer than two variants share two seeds); assume a deviation, e.g. --deviation",
        ),
        ({}, {"lacking": [(n, s) for n in NAMES for s in range(3)]}, {}, "tiny: no finished cell"),
        ({}, {"deviation": 0.0}, {}, "tiny: variants do not scatter"),
        ({"smallest_difference": None}, {}, {}, "declares no comparison.smallest_difference; say which, e.g. --diff"),
        ({}, {}, {"difference": 5.0}, "--difference is 5; it must be above 0 and at most 1, e.g. 0.05 for 5 %"),
        ({}, {}, {"difference": math.nan}, "--difference is nan"),
        ({}, {}, {"deviation": 0.0}, "--deviation is 0; it must be a finite number above 0"),
        ({}, {}, {"deviation": math.inf}, "--deviation is inf"),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_said_in_one_line(declared, frame, options, message):
    with pytest.raises(UserError) as caught:
        plan(study(**declared), measured(**frame), **options)
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_one_variant_is_no_comparison():
    alone = study()
    alone["grid"]["parameterizations"] = ["v"]
    with pytest.raises(UserError, match="study digits has one parameterization; a comparison needs two"):
        plan(alone, measured(names=["v"]), deviation=0.03)


def test_values_at_or_below_zero_have_no_relative_spread():
    frame = measured()
    frame.loc[0, "value"] = -1.0
    assert plan_seeds._spread(frame, "tiny", None) == "a value is not above 0"
