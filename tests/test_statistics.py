"""From rows to the answer: against scipy, against an example done by hand, and for grids that are partly done."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from helpers import as_measured, whole_outcome
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from targetwise import cells
from targetwise.cells import rows
from targetwise.errors import UserError
from targetwise.files import read_json, write_json
from targetwise.inference.declared import Declared
from targetwise.report import statistics
from targetwise.report.effects import of_axes, of_factors
from targetwise.report.statistics import comparisons, pairs, spread, summary
from targetwise.report.table import COMPARABLE, TABLE_COLUMNS, table


def frame(values, scale="tiny"):
    """Return a table of {parameterization: {seed: value, or [values of draws], or None, or 'diverged'}}."""
    records = []
    for name, by_seed in values.items():
        for seed, drawn in by_seed.items():
            for draw, value in enumerate(drawn if isinstance(drawn, list) else [drawn]):
                finished = isinstance(value, int | float)
                records.append(
                    {
                        "parameterization": name,
                        "scale": scale,
                        "setting": scale,
                        "seed": seed,
                        "draw": draw,
                        "status": "finished" if finished else (value or "missing"),
                        "value": float(value) if finished else math.nan,
                        "clipped_share": 0.5 if finished else math.nan,
                    }
                )
    return pd.DataFrame.from_records(records, columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS)


def only(rows):
    assert len(rows) == 1
    return rows.iloc[0]


def test_an_example_done_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, t(0.975; 2) = 4.302653, half width 4.302653/√3 = 2.484138."""
    pair = only(pairs(frame({"v": {0: 11, 1: 22, 2: 33}, "x0": {0: 10, 1: 20, 2: 30}})))
    assert (pair["scale"], pair["a"], pair["b"], pair["seeds"]) == ("tiny", "v", "x0", 3)
    assert pair["difference"] == pytest.approx(2, abs=1e-12)
    assert pair["deviation"] == pytest.approx(1, abs=1e-12)
    assert pair["low"] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert pair["high"] == pytest.approx(2 + 2.484138, abs=1e-6)
    assert pair["p_value"] == pytest.approx(0.0741799, abs=1e-6)  # t = 2√3 on 2 degrees of freedom
    assert pair["verdict"] == "not resolved"


# --- comparisons that hold together, and what else is declared


def test_a_parameterization_without_any_value_is_in_the_comparisons_all_the_same():
    found = comparisons(frame({"v": {0: 11, 1: 22}, "x0": {0: None, 1: "diverged"}}), Declared(None, 0.05, {}))
    pair = only(found)
    assert (pair["setting"], pair["scale"], pair["a"], pair["b"]) == ("tiny", "tiny", "v", "x0")
    assert (pair["seeds"], pair["verdict"]) == (0, "too few seeds")


def test_draws_are_averaged_before_they_are_compared():
    found = only(comparisons(frame({"v": {0: [1, 3], 1: [2, 4]}, "x0": {0: [4, 4], 1: [6, 6]}}), Declared()))
    assert found["ratio"] == pytest.approx(0.5)  # 2/4 and 3/6
    assert found["measure"] == "ratio"


def test_the_spread_of_finite_samples_is_relative_to_the_value():
    values = frame({"v": {0: 10, 1: 20, 2: 40}, "x0": {0: 12, 1: 22, 2: 37}})
    values["error"] = 0.03 * values["value"]
    assert spread(values)["tiny"].samples == pytest.approx(0.03**2)


def declaring(**section):
    return {"comparison": {"factors": [], "curves": [], **section}}


def test_factors_are_told_at_each_scale_unless_the_scale_is_one():
    values = {
        f"{target}_{weighting}": {0: mean, 1: 1.1 * mean, 2: 0.9 * mean + 0.01 * mean}
        for target, mean in (("v", 10), ("x0", 20))
        for weighting in ("constant", "snr")
    }
    whole = pd.concat([frame(values, scale) for scale in ("small", "large")], ignore_index=True)
    whole[["target", "weighting"]] = whole["parameterization"].str.split("_", expand=True).to_numpy()
    apart = of_factors(whole, declaring(factors=["target", "weighting"]))
    assert list(apart) == ["small", "large"]
    assert only(apart["large"].effects.query("factor == 'target'"))["ratio"] == pytest.approx(0.5)
    together = of_factors(whole, declaring(factors=["target", "weighting", "scale"]))
    assert list(together) == [""]
    assert set(together[""].effects["factor"]) == {"target", "weighting", "scale"}


def test_a_curve_names_the_places_where_nothing_finished():
    values = frame({"low": {0: 3, 1: 4}, "middle": {0: None, 1: None}, "high": {0: 5, 1: 6}})
    values["rate"] = values["parameterization"].map({"low": 1.0, "middle": 2.0, "high": 3.0})
    values.attrs["fields"] = ["rate"]
    (curve,) = of_axes(values, declaring(curves=["rate"]))
    assert curve.lacking == [2.0]
    assert curve.points["mean"].tolist() == pytest.approx([12**0.5, 30**0.5])


# --- the paired differences, each by itself

numbers = some.floats(-100, 100).map(lambda value: round(value, 3))


@given(some.lists(some.tuples(numbers, numbers), min_size=2, max_size=8))
def test_the_interval_and_p_are_scipys(values):
    a, b = (np.array(column) for column in zip(*values, strict=True))
    pair = only(pairs(frame({"one": dict(enumerate(a)), "two": dict(enumerate(b))})))
    if np.ptp(a - b) < 1e-9:
        return
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert pair["p_value"] == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (pair["low"], pair["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)
    assert (pair["verdict"] != "not resolved") == (expected.pvalue < 0.05)


def test_the_lower_value_wins_whichever_comes_first():
    low, high = {0: 10.0, 1: 11.0, 2: 12.0}, {0: 20.1, 1: 21.0, 2: 21.9}
    first = only(pairs(frame({"good": low, "bad": high})))
    assert (first["verdict"], first["difference"] < 0) == ("good", True)
    second = only(pairs(frame({"bad": high, "good": low})))
    assert (second["verdict"], second["difference"] > 0) == ("good", True)
    assert second["difference"] == -first["difference"]
    assert (second["low"], second["high"]) == (-first["high"], -first["low"])


def test_pairing_removes_what_the_seeds_share():
    """Seeds differ by 100, the two by 1 ± 0.01: unpaired nobody would see it."""
    shared = {seed: 100.0 * seed for seed in range(4)}
    other = {seed: value + 1 + 0.01 * (-1) ** seed for seed, value in shared.items()}
    assert only(pairs(frame({"a": shared, "b": other})))["verdict"] == "a"
    assert stats.ttest_ind(list(shared.values()), list(other.values())).pvalue > 0.9


def test_seeds_are_paired_by_number_not_by_place():
    one, two = {0: 1.0, 1: 5.0, 2: 9.0}, {2: 9.5, 0: 1.5, 1: 5.5}
    pair = only(pairs(frame({"a": one, "b": two})))
    assert pair["difference"] == -0.5
    assert pair["deviation"] == 0


def test_differences_that_are_all_equal():
    same = only(pairs(frame({"a": {0: 1, 1: 2}, "b": {0: 1, 1: 2}})))
    assert (same["difference"], same["p_value"], same["verdict"]) == (0, 1, "not resolved")
    shifted = only(pairs(frame({"a": {0: 1, 1: 2}, "b": {0: 3, 1: 4}})))
    assert (shifted["difference"], shifted["p_value"], shifted["verdict"]) == (-2, 0, "a")
    assert (shifted["low"], shifted["high"]) == (-2, -2)


def test_one_seed_resolves_nothing():
    pair = only(pairs(frame({"a": {0: 1}, "b": {0: 1000}})))
    assert (pair["seeds"], pair["difference"], pair["verdict"]) == (1, -999, "too few seeds")
    assert all(math.isnan(pair[key]) for key in ("deviation", "low", "high", "p_value"))


def test_only_seeds_that_both_have_count():
    a = {0: 1.0, 1: 2.0, 2: None, 3: "diverged", 4: 7.0}
    b = {0: 2.0, 1: 4.0, 2: 3.0, 3: 4.0, 4: None}
    pair = only(pairs(frame({"a": a, "b": b})))
    assert (pair["seeds"], pair["difference"]) == (2, -1.5)


def test_nothing_in_common_is_told():
    for b in ({0: None, 1: None}, {0: "diverged", 1: "diverged"}):
        pair = only(pairs(frame({"a": {0: 1.0, 1: 2.0}, "b": b})))
        assert (pair["seeds"], pair["verdict"]) == (0, "too few seeds")
        assert math.isnan(pair["difference"])


def test_draws_are_averaged_before_anything_else():
    """Draws of one model are not independent of it: four draws of two seeds are two observations, not eight."""
    drawn = {"a": {0: [1.0, 3.0], 1: [2.0, 4.0]}, "b": {0: [0.0, 2.0], 1: [0.0, 5.0]}}
    averaged = {"a": {0: 2.0, 1: 3.0}, "b": {0: 1.0, 1: 2.5}}
    pd.testing.assert_frame_equal(pairs(frame(drawn)), pairs(frame(averaged)))
    columns = ["mean", "deviation", "seeds"]
    pd.testing.assert_frame_equal(summary(frame(drawn))[columns], summary(frame(averaged))[columns])


def test_a_cell_counts_only_with_all_its_draws():
    """Else a seed measured once would be compared with a seed measured twice."""
    values = {"a": {0: [1.0, 1.0], 1: [5.0, None]}, "b": {0: [2.0, 2.0], 1: [2.0, 2.0]}}
    assert only(pairs(frame(values)))["seeds"] == 1
    a = summary(frame(values)).iloc[0]
    assert (a["mean"], a["seeds"], a["missing"]) == (1.0, 1, 1)


def test_every_pair_at_every_scale_once():
    both = pd.concat(
        frame({name: {0: i, 1: i} for i, name in enumerate("cab")}, scale) for scale in ("small", "large")
    )
    found = pairs(both)
    expected = [(scale, *pair) for scale in ("small", "large") for pair in itertools.combinations("cab", 2)]
    assert list(zip(found["scale"], found["a"], found["b"], strict=True)) == expected


def test_scales_do_not_mix():
    both = pd.concat([frame({"a": {0: 1}, "b": {0: 2}}, "small"), frame({"a": {1: 1}, "b": {1: 9}}, "large")])
    assert pairs(both)["seeds"].tolist() == [1, 1]
    assert pairs(both)["difference"].tolist() == [-1, -8]
    assert summary(both)["mean"].tolist() == [1, 2, 1, 9]


def test_one_parameterization_has_no_pairs():
    found = pairs(frame({"a": {0: 1, 1: 2}}))
    assert len(found) == 0
    assert {"a", "b", "verdict"} <= set(found.columns)


# --- the summary ---------------------------------------------------------------------------------------------------


def test_mean_and_spread_over_seeds():
    found = summary(frame({"v": {0: 1, 1: 2, 2: 6}, "x0": {0: 4.0, 1: None, 2: "diverged"}}))
    assert found["parameterization"].tolist() == ["v", "x0"]
    v, x0 = found.iloc[0], found.iloc[1]
    assert (v["mean"], v["deviation"], v["seeds"]) == (3, pytest.approx(math.sqrt(7)), 3)
    assert (x0["mean"], x0["seeds"], x0["missing"], x0["diverged"]) == (4, 1, 1, 1)
    assert math.isnan(x0["deviation"])
    assert v["clipped_share"] == 0.5


def test_a_grid_of_which_nothing_is_done_has_a_summary_all_the_same():
    nothing = frame({"v": {0: None, 1: None}, "x0": {0: None, 1: "diverged"}})
    found = summary(nothing)
    assert found["seeds"].tolist() == [0, 0]
    assert found["missing"].tolist() == [2, 1]
    assert found["mean"].isna().all()
    assert only(pairs(nothing))["verdict"] == "too few seeds"


# --- the table -----------------------------------------------------------------------------------------------------

MODEL = "a" * 64


@pytest.fixture
def finished(project, study, monkeypatch):
    """A grid of v and x0 with two seeds and two draws, all of it measured."""
    monkeypatch.setattr(rows, "check_row", lambda row, where: None)  # the row's own schema has its own tests
    study["grid"].update(parameterizations=["v", "x0"], seeds=[0, 1])
    study["sampling"]["draws"] = 2
    for cell in cells.grid(study):
        outcome = whole_outcome(steps=9, final_loss=0.25, clipped_share=0.5, model_sha256=MODEL)
        write_json(cell.folder / "training.json", outcome)
        for draw in (0, 1):
            write_row(study, cell, draw)
    return study


def row_file(study, cell, draw):
    return cell.folder / "fid/ddim-50" / f"draw{draw}.json"


def write_row(study, cell, draw, **changes):
    row = {
        "cell": {
            "study": cell.study,
            "parameterization": cell.parameterization,
            "scale": cell.scale,
            "seed": cell.seed,
        },
        "draw": draw,
        "status": "finished",
        "reason": None,
        "metric": "FD",
        "value": 10.0 + cell.seed + draw,
        "name": "frechet",
        "values": {"frechet": 10.0 + cell.seed + draw, "kid": 0.1},
        "n": 512,
        "mode": "m",
        "implementation": "clean-fid",
        "sampler": "ddim-50",
        "marks": ["one", "two"],
        "extractor_sha256": "e" * 64,
        "reference_sha256": "r" * 64,
        "samples_sha256": "s" * 64,
        "model_sha256": MODEL,
    }
    write_json(row_file(study, cell, draw), as_measured(study, {**row, **changes}))


def test_the_table_has_a_row_for_every_cell_and_draw(finished):
    found = table(finished)
    assert list(found.columns) == [*TABLE_COLUMNS, "kid", "loss_space", "target"]
    keys = found[["parameterization", "scale", "seed", "draw"]].itertuples(index=False, name=None)
    assert list(keys) == [(p, "tiny", s, d) for p in ("v", "x0") for s in (0, 1) for d in (0, 1)]
    assert (found["status"] == "finished").all()
    assert found["value"].tolist() == [10, 11, 11, 12] * 2
    assert found["steps"].tolist() == [9] * 8
    assert found["final_loss"].tolist() == [0.25] * 8
    assert found["marks"].tolist() == ["one; two"] * 8
    assert summary(found)["mean"].tolist() == [11, 11]


def test_the_error_is_that_of_the_first_metric_and_empty_where_a_row_has_none(finished):
    first, second, *_ = cells.grid(finished)
    write_row(finished, first, 0, errors={"frechet": 0.2, "kid": 0.01})
    write_row(finished, first, 1, errors={"kid": 0.01}, without_error={"frechet": "too few"})
    write_row(finished, second, 0, status="diverged", value=None, values={}, reason="not finite")
    frame = table(finished)
    found = frame["error"]
    assert found[0] == 0.2 and found[1:].isna().all()
    # The reason is a mark, so that the page says it.
    assert frame["marks"].fillna("").str.contains("no standard error: too few").tolist()[:3] == [False, True, False]
    finished["metric"]["names"] = ["kid", "frechet"]
    write_row(finished, first, 0, name="kid", errors={"frechet": 0.2, "kid": 0.01})
    assert table(finished)["error"][0] == 0.01


def test_every_number_of_every_metric_has_a_column(finished):
    """Those that a metric measures beside its own too; where a cell diverged, or has no row yet, they are empty."""
    finished["metric"]["names"] = ["kid", "frechet"]
    first, second, *others = cells.grid(finished)
    for cell in (first, second, *others):
        for draw in (0, 1):
            write_row(finished, cell, draw)
    measured = {"kid": 0.1, "frechet": 7.0, "recall": 0.25}
    write_row(finished, first, 0, name="kid", value=0.1, values=measured)
    write_row(finished, second, 0, status="diverged", reason="not finite", value=None, values={}, n=0)
    row_file(finished, second, 1).unlink()
    found = table(finished)
    assert list(found.columns) == [*TABLE_COLUMNS, "frechet", "recall", "loss_space", "target"]
    assert found.loc[0, ["value", "frechet", "recall"]].tolist() == [0.1, 7.0, 0.25]
    diverged, missing = (found[(found["seed"] == second.seed) & (found["draw"] == draw)].iloc[0] for draw in (0, 1))
    assert diverged[["value", "frechet", "recall"]].isna().all() and missing[["value", "frechet"]].isna().all()


def test_a_training_that_was_continued_elsewhere_marks_its_values(finished):
    cell = cells.grid(finished)[0]
    continued = [
        {"step": 1200, "differences": ["torch 2.1 instead of 2.0", "card B instead of A"]},
        {"step": 2000, "differences": ["card A instead of B"]},
    ]
    write_json(cell.folder / "training.json", whole_outcome(model_sha256=MODEL, continued=continued))
    assert (
        table(finished)["marks"].tolist()
        == [
            "one; two; continued after step 1,200 with torch 2.1 instead of 2.0, card B instead of A; "
            "continued after step 2,000 with card A instead of B",
        ]
        * 2
        + ["one; two"] * 6
    )


def test_trainings_of_different_formats_are_marked_where_the_same_was_asked_for(finished):
    """As after cpu.json was edited by hand; what was recorded by nobody, as by an older version, is not guessed."""
    finished["training"]["precision"]["cpu"] = "auto"
    for cell in cells.grid(finished):
        for draw in (0, 1):
            write_row(finished, cell, draw)
    first, second, third, _ = cells.grid(finished)
    for cell, precision, compiled in ((first, "fp32", False), (second, "fp32", False), (third, "bf16", True)):
        used = {"precision": precision, "compile": compiled}
        write_json(cell.folder / "training.json", whole_outcome(model_sha256=MODEL, formats=used))
    assert table(finished)["marks"].tolist() == [
        *["one; two; trained in fp32"] * 4,
        *["one; two; trained in bf16, compiled"] * 2,
        *["one; two"] * 2,
    ]
    row_file(finished, third, 0).unlink()
    row_file(finished, third, 1).unlink()
    assert set(table(finished)["marks"].dropna()) == {"one; two"}


def test_variants_that_state_their_formats_are_not_marked(finished):
    """The field stands in a column of its own."""
    finished["parameterizations"]["x0"] = {"target": "x0", "training": {"precision": {"cpu": "bf16"}}}
    for cell in cells.grid(finished):
        used = {"precision": "bf16" if cell.parameterization == "x0" else "fp32", "compile": False}
        write_json(cell.folder / "training.json", whole_outcome(model_sha256=MODEL, formats=used))
        for draw in (0, 1):
            write_row(finished, cell, draw)
    found = table(finished)
    assert found["marks"].tolist() == ["one; two"] * 8
    assert found["training.precision.cpu"].tolist() == ["fp32"] * 4 + ["bf16"] * 4


def test_the_table_is_the_same_after_a_trip_through_csv(finished, tmp_path):
    found = table(finished)
    found.to_csv(tmp_path / "table.csv", index=False)
    back = pd.read_csv(tmp_path / "table.csv")
    assert back["value"].tolist() == found["value"].tolist()
    pd.testing.assert_frame_equal(pairs(back), pairs(found))


def test_a_cell_that_was_not_made_is_named(finished):
    cell = cells.find(finished, "v-tiny-1")
    row_file(finished, cell, 1).unlink()
    found = table(finished)
    missing = only(found[found["status"] == "missing"])
    assert (missing["parameterization"], missing["seed"], missing["draw"]) == ("v", 1, 1)
    assert missing["reason"] == f"{row_file(finished, cell, 1)} was not made"
    assert math.isnan(missing["value"])
    assert (found["status"] == "finished").sum() == 7


def test_nothing_made_is_a_table_all_the_same(project, study):
    found = table(study)
    assert len(found) == len(cells.grid(study))
    assert (found["status"] == "missing").all()
    assert found["n"].isna().all()


def test_what_lies_on_disk_and_is_not_in_the_grid_is_left_out(finished):
    finished["grid"]["seeds"] = [1]
    assert set(table(finished)["seed"]) == {1}


def test_a_diverged_cell_is_in_the_table_with_its_reason(finished):
    cell = cells.find(finished, "x0-tiny-0")
    for draw in (0, 1):
        write_row(
            finished, cell, draw, status="diverged", reason="the loss was not finite", value=None, values={}, n=0
        )
    found = table(finished)
    diverged = found[found["status"] == "diverged"]
    assert len(diverged) == 2
    assert set(diverged["reason"]) == {"the loss was not finite"}
    assert diverged["value"].isna().all()
    assert summary(found).set_index("parameterization").loc["x0", "diverged"] == 1
    assert only(pairs(found))["seeds"] == 1


@pytest.mark.parametrize("column", COMPARABLE)
def test_rows_that_measure_different_things_are_refused_by_name(finished, column):
    """Never mix what is not one scale."""
    other = 511 if column == "n" else "other"
    write_row(finished, cells.find(finished, "x0-tiny-1"), 0, **{column: other})
    with pytest.raises(UserError) as caught:
        table(finished)
    message = str(caught.value)
    assert f"because {column} differs" in message
    assert f"x0-tiny-1 draw 0 has {other}" in message
    assert "v-tiny-0 draw 0 has" in message
    assert len(message.splitlines()) == 1


def test_what_makes_rows_comparable_is_in_the_table():
    assert set(COMPARABLE) <= set(TABLE_COLUMNS)
    assert {"metric", "mode", "n", "extractor_sha256", "reference_sha256"} <= set(COMPARABLE)


def test_a_row_of_another_cell_is_refused(finished):
    """A file that was copied to the wrong place must not count."""
    v, x0 = cells.find(finished, "v-tiny-0"), cells.find(finished, "x0-tiny-0")
    write_json(row_file(finished, v, 0), read_json(row_file(finished, x0, 0)))
    with pytest.raises(UserError, match=r"v/tiny/seed0/\S+draw0\.json is of another cell"):
        table(finished)


def test_a_row_of_another_draw_is_refused(finished):
    v = cells.find(finished, "v-tiny-0")
    write_json(row_file(finished, v, 0), read_json(row_file(finished, v, 1)))
    with pytest.raises(UserError, match="is of another cell or draw"):
        table(finished)


def test_a_row_of_an_earlier_model_counts_as_missing(finished):
    """A cell that was trained again and not measured since; its old number belongs to other weights."""
    write_row(finished, cells.find(finished, "v-tiny-0"), 0, model_sha256="b" * 64)
    found = table(finished)
    missing = only(found[found["status"] == "missing"])
    assert missing["reason"].endswith("was measured on an earlier model of this cell")
    assert math.isnan(missing["value"])


def test_a_damaged_row_is_named(finished):
    path = row_file(finished, cells.find(finished, "v-tiny-0"), 0)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=r"draw0\.json is damaged"):
        table(finished)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, " does not exist"),
        ("{", " is damaged"),
        ("[]", ": "),
        (
            json.dumps({"status": "finished", "reason": None, "steps": 9, "final_loss": 0.25}),
            ": model_sha256 is missing",
        ),
    ],
)
def test_a_cell_of_which_no_record_says_what_model_it_has_counts_as_missing(finished, content, reason):
    path = cells.find(finished, "v-tiny-1").folder / "training.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    found = table(finished)
    missing = found[found["status"] == "missing"]
    assert list(zip(missing["parameterization"], missing["seed"], strict=True)) == [("v", 1)] * 2
    assert all(told.startswith(f"{path}{reason}") for told in missing["reason"])
    assert (found["status"] == "finished").sum() == 6


def test_a_training_by_a_rule_of_ones_own_need_not_say_what_ours_says(finished):
    """docs/extending.md: it may leave out what only our loop counts."""
    path = cells.find(finished, "v-tiny-1").folder / "training.json"
    ours = json.loads(path.read_text())
    write_json(path, {name: value for name, value in ours.items() if name not in ("clipped_share", "key")})
    found = table(finished)
    assert (found["status"] == "finished").all()
    assert found["clipped_share"].isna().sum() == 2


def test_a_row_that_is_not_whole_is_refused(project, study):
    """With the real schema."""
    cell = cells.grid(study)[0]
    write_json(cell.folder / "training.json", whole_outcome(model_sha256=MODEL))
    write_row(study, cell, 0)
    with pytest.raises(UserError, match="not a whole row"):
        table(study)


def test_the_confidence_is_what_the_columns_say():
    assert statistics.CONFIDENCE == 0.95


def test_a_number_that_was_measured_under_another_configuration_counts_as_missing(finished):
    """Whether the samples are still there or not."""
    finished["sampling"]["clip"] = False
    found = table(finished)
    assert (found["status"] == "missing").all() and found["value"].isna().all()
    assert found["reason"].str.endswith("is of another configuration than the present one").all()


def test_a_row_of_an_older_schema_is_missing_and_no_error(finished, monkeypatch):
    monkeypatch.setattr(rows, "check_row", lambda row, where: pytest.fail("asked of a row that does not count"))
    finished["grid"].update(parameterizations=["v"], seeds=[0])
    for draw in (0, 1):
        path = row_file(finished, cells.grid(finished)[0], draw)
        write_json(path, {name: value for name, value in read_json(path).items() if name not in ("key", "values")})
    assert table(finished)["status"].tolist() == ["missing", "missing"]


def test_a_number_that_is_called_like_a_column_has_one_of_its_own(finished):
    cell = cells.find(finished, "v-tiny-0")
    write_row(finished, cell, 0, values={"frechet": 10.0, "kid": 0.1, "steps": 77.0})
    found = table(finished)
    assert found.loc[0, ["steps", "metric.steps"]].tolist() == [9, 77.0]


def test_a_scales_own_batch_is_the_one_in_the_table(finished):
    finished["scales"]["small"] = {**finished["scales"]["tiny"], "global_batch": 16}
    finished["grid"]["scales"] = ["tiny", "small"]
    found = table(finished).groupby("scale", sort=False)["training.global_batch"].unique()
    assert [list(each) for each in found] == [[256], [16]]
