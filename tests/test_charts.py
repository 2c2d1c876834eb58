"""The report's figures: they are valid Vega-Lite, and what is drawn is what was given."""

import itertools
import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import vl_convert
from test_report import APART, Page, config, drawn, make_cell, make_grid, render  # noqa: F401 (config is a fixture)

from targetwise import cells
from targetwise.cells import Cell
from targetwise.files import read_json, write_json
from targetwise.report import (
    charts,
    curve_charts,
    explorer,
    heat_maps,
    interval_charts,
    panels,
    probe_charts,
    training_charts,
)
from targetwise.report.table import table
from targetwise.report.vega import PAPER, POINTS, as_json, axis, looks, thinned, ticks


def specification(element):
    """Return what the page's script would draw, with a width and with colours."""
    text = re.search(r'<script type="application/json">(.*?)</script>', str(element), re.DOTALL).group(1)
    return {**json.loads(re.sub(r"var\(--[\w-]+\)", "#123456", text)), "width": 360}


def picture(element):
    return vl_convert.vegalite_to_svg(specification(element))


def words(svg):
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def pair(a, b, ratio, low, high, resolved):
    verdict = "better" if resolved else "not resolved"
    return {"a": a, "b": b, "ratio": ratio, "low": low, "high": high, "p_value": 0.01, "seeds": 3} | {
        "verdict": verdict,
        "resolved": resolved,
    }


def test_an_interval_reaches_from_its_low_to_its_high_and_its_row_names_it():
    pairs = pd.DataFrame([pair("v", "epsilon", 0.5, 0.4, 0.625, True), pair("x0", "epsilon", 1, 0.8, 1.25, False)])
    figure = charts.intervals(pairs, "ratio", 0.05, "FD", "tiny")
    svg = picture(figure)
    assert {"v / epsilon: better", "x0 / epsilon: not resolved", "ratio of FD"} <= set(words(svg))
    (one, other) = [float(each) for each in re.findall(r'aria-label="ratio of FD: [^>]*x2="([\d.]+)"', svg)]
    # Both intervals reach from 0.8 to 1.25 times their middle, so they are equally long on a log axis.
    assert one == pytest.approx(other, rel=1e-3) and abs(one) > 20
    assert "x0 / epsilon 1.00, not resolved" in unescape(re.search('aria-label="([^"]*)"', str(figure)).group(1))


def test_a_difference_has_a_linear_axis_around_0():
    figure = charts.intervals(
        pd.DataFrame([pair("v", "epsilon", -0.5, -0.9, -0.1, True)]), "difference", 0.05, "FD", "s"
    )
    across = specification(figure)["layer"][0]["encoding"]["x"]
    assert across["scale"]["type"] == "linear" and across["datum"] == 0
    low, high = across["scale"]["domain"]
    assert low < -0.9 and high > 0
    assert "v − epsilon: better" in words(picture(figure))


def test_an_interval_that_nobody_knows_leaves_its_dot():
    unknown = pair("v", "epsilon", 0.5, np.nan, np.nan, False)
    svg = picture(charts.intervals(pd.DataFrame([unknown]), "ratio", None, "FD", "tiny"))
    assert "v / epsilon: not resolved" in words(svg) and "NaN" not in svg


def factors(levels, scale="ratio"):
    """What one factor's levels do: of every two, the first is 10 % above the second, and each 20 % below the mean."""
    of = {"ratio": 1.1, "low": 0.9, "high": 1.3, "combinations": 2}
    pairs = [{"factor": "rate", "a": a, "b": b, **of} for a, b in itertools.combinations(levels, 2)]
    means = [{"factor": "rate", "level": level, **of, "ratio": 0.8, "high": 0.95} for level in levels]
    return SimpleNamespace(effects=pd.DataFrame(pairs), levels=pd.DataFrame(means), scale=scale)


def test_the_effects_of_a_factor_are_its_pairs_and_of_many_levels_each_against_the_mean():
    figure = interval_charts.effects(factors(["0.3", "0.1", "0.2"]), None, "FD", "tiny")
    svg = picture(figure)
    assert {word for word in words(svg) if word.startswith("rate:")} == {
        f"rate: {pair}" for pair in ("0.3 / 0.1", "0.3 / 0.2", "0.1 / 0.2")
    }
    assert "rate: 0.3 / 0.1 1.10; rate: 0.3 / 0.2 1.10" in str(figure) and 'data-name="effects-tiny"' in str(figure)
    many = interval_charts.effects(factors(["0.3", "0.1", "10", "9", "0.2", "0.4"]), 0.1, "FD", "")
    shown = specification(many)["data"]["values"]
    assert [row["comparison"] for row in shown] == [
        f"rate: {level} / mean of all" for level in ("0.1", "0.2", "0.3", "0.4", "9", "10")
    ]
    assert {(row["ratio"], row["low"], row["high"], row["resolved"]) for row in shown} == {(0.8, 0.9, 0.95, True)}
    assert "rate: 10 / mean of all 0.80, resolved" in str(many) and 'data-name="effects"' in str(many)


def test_what_no_combination_tells_of_a_factor_is_not_drawn():
    found = factors(list("abcdef"))
    found.levels.loc[0, "ratio"] = np.nan
    found.effects.loc[1:, "ratio"] = np.nan
    found.effects.loc[0, ["low", "high"]] = np.nan
    (row,) = specification(interval_charts.effects(found, None, "FD", ""))["data"]["values"]
    assert (row["comparison"], row["ratio"], row["low"], row["resolved"]) == ("rate: a / b", 1.1, None, False)
    found.effects["ratio"] = np.nan
    assert interval_charts.effects(found, None, "FD", "") is None


def test_the_effect_of_a_difference_is_resolved_if_its_interval_leaves_out_0():
    found = factors(["a", "b"], scale="difference")
    (row,) = specification(interval_charts.effects(found, None, "FD", ""))["data"]["values"]
    assert (row["comparison"], row["difference"], row["resolved"]) == ("rate: a − b", 1.1, True)


def test_a_p_value_is_told_as_on_the_page():
    found = charts.intervals(
        pd.DataFrame([pair("v", "x0", 0.5, 0.4, 0.6, True) | {"p_value": 5.7e-38}]), "ratio", None, "FD", "s"
    )
    assert specification(found)["data"]["values"][0]["p"] == "< 0.0001"


def test_long_names_take_two_lines_where_a_telephone_has_no_room_for_one():
    names = ("v_scaled_linear_0p00085_0p012_true", "v_true")
    svg = picture(charts.intervals(pd.DataFrame([pair(*names, 0.5, 0.4, 0.625, True)]), "ratio", None, "FD", "tiny"))
    assert ">v_scaled_linear_0p00085_0p012_true /<" in svg and ">v_true: better<" in svg
    svg = picture(charts.values(rows({name: [1.0, 2.0] for name in names}), names, "FD", "tiny"))
    assert ">v_scaled_linear_<" in svg and ">0p00085_0p012_true<" in svg and "v_true" in words(svg)


@pytest.mark.parametrize(("name", "columns"), [("epsilon_truncated_snr", 1), ("x0_in_v", 3)])
def test_a_legend_has_as_many_columns_as_fit_a_telephone(name, columns):
    legend = looks("parameterization", [name], [name], legend=True)["color"]["legend"]
    assert legend["columns"] == columns


def test_the_dots_of_a_variant_lie_around_its_name():
    svg = picture(charts.values(rows({"v": [1.0, 2.0, 3.0], "x0": [2.0, 3.0, 4.0]}), ["v", "x0"], "FD", "tiny"))
    for name in ("v", "x0"):
        (label,) = (
            float(y) for y in re.findall(rf"<text [^>]*translate\(-?[\d.]+,([\d.]+)\)[^>]*>{name}</text>", svg)
        )
        dots = [float(y) for y in re.findall(rf"parameterization: {name};[^>]*translate\([\d.]+,([\d.]+)\)", svg)]
        assert len(dots) == 3 and np.mean(dots) == pytest.approx(label - 4, abs=1)  # a label is placed by its foot


def rows(values):
    return pd.DataFrame(
        [
            {"parameterization": name, "seed": seed, "draw": 0, "value": value, "error": np.nan}
            for name, each in values.items()
            for seed, value in enumerate(each)
        ]
    )


def test_of_many_variants_the_lowest_are_drawn_and_each_keeps_its_look():
    order = [f"v{place:02d}" for place in range(50)]
    frame = rows({name: [100 - place] for place, name in enumerate(order)})
    found = specification(charts.values(frame, order, "FD", "tiny"))["encoding"]
    assert found["color"]["scale"]["domain"] == order[10:]
    assert all(name in words(picture(charts.values(frame, order, "FD", "tiny"))) for name in order[10:])
    alone = specification(charts.values(frame.tail(1), order, "FD", "tiny"))["encoding"]
    assert alone["color"]["scale"]["range"] == found["color"]["scale"]["range"][-1:]
    assert alone["shape"]["scale"]["range"] == found["shape"]["scale"]["range"][-1:]


def test_bounds_are_named_in_their_order_and_what_is_not_known_is_left_out():
    frame = rows({"v": [40.0, 41.0]})
    svg = picture(charts.limits(frame, ["v"], "FD", "tiny", 10.25, None, {"v": 1853.1, "x0": 2000.0}))
    assert {"real 10.25", "untrained 1,853 to 2,000"} <= set(words(svg)) and "exact" not in svg
    assert charts.limits(frame, ["v"], "FD", "tiny", None, None, {}) is None
    assert charts.limits(frame, ["v"], "FD", "tiny", 0.0, None, {}) is None  # of copies alone some metrics are 0


def test_the_highest_bound_stands_at_its_value_and_dots_have_their_errors():
    frame = rows({"v": [40.0, 41.0]}).assign(error=[0.5, 0.25])
    _, ticked, highest, lowest = specification(
        charts.limits(frame, ["v"], "FD", "tiny", 10.25, None, {"v": 1853.1, "x0": 2000.0})
    )["layer"]
    assert [row["FD"] for row in ticked["data"]["values"]] == [10.25, 2000, 1853.1, 2000]
    assert (highest["data"]["values"][0]["FD"], lowest["data"]["values"][0]["FD"]) == (2000, 10.25)
    dots = specification(charts.values(frame, ["v"], "FD", "tiny"))["data"]["values"]
    assert [(dot["FD"], dot["error"]) for dot in dots] == [(40, 0.5), (41, 0.25)]


def test_the_band_is_as_wide_as_the_smallest_difference():
    pairs = pd.DataFrame([pair("v", "epsilon", 0.5, 0.4, 0.625, True)])
    band = specification(charts.intervals(pairs, "ratio", 0.25, "FD", "tiny"))["layer"][0]["data"]["values"]
    assert band == [{"from": 0.8, "to": 1.25}]
    fill = specification(charts.intervals(pairs, "ratio", None, "FD", "tiny"))["layer"][2]["encoding"]["fill"]
    assert fill["condition"]["test"] == "datum.resolved" and fill["condition"]["value"] != PAPER


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_curve_has_its_band_and_a_ring_where_the_best_may_be(logarithmic):
    points = pd.DataFrame({"x": [1, 2, 8], "mean": [4.0, 2.0, 6.0], "low": [3.0, 1.0, 5.0], "high": [5.0, 3.5, 7.0]})
    points["may_be_best"] = [False, True, False]
    curve = SimpleNamespace(axis="training.steps", group={}, points=points, logarithmic=logarithmic)
    found = specification(curve_charts.over_axis([curve], "FD"))
    assert [(row["FD"], row["low"], row["high"]) for row in found["data"]["values"]] == [
        (4, 3, 5),
        (2, 1, 3.5),
        (6, 5, 7),
    ]
    assert found["encoding"]["x"]["field"] == "training\\.steps"
    assert found["encoding"]["x"]["scale"]["type"] == ("log" if logarithmic else "linear")
    band, _, _, ring = found["layer"]
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
    assert ring["transform"] == [{"filter": "datum['may be best']"}]
    assert picture(curve_charts.over_axis([curve], "FD")).count('aria-roledescription="point"') == 3 + 1


def test_a_loss_that_was_not_finite_is_marked_at_its_step():
    curve = {0: [(10, 0.5), (20, 0.4)], 1: [(10, 0.5), (20, None)]}
    _, cross = specification(training_charts.loss_curves(curve, 0, "v", "tiny"))["layer"]
    assert cross["data"]["values"] == [{"seed": 1, "step": 20}]
    assert len(specification(training_charts.loss_curves({0: curve[0]}, 0, "v", "tiny"))["layer"]) == 1


@pytest.mark.parametrize(
    "figure",
    [
        training_charts.loss_curves({0: [(10, 0.5)], 1: [(10, None)]}, 0, "v", "tiny"),
        training_charts.clipped_curves({"v": ([10, 20], [0.5, 0.25])}, ["v"], "tiny"),
        training_charts.gradient_curves({"v": ([10, 20], [None, 0.0])}, ["v"], "tiny", [1.0]),
        training_charts.of_check({"v": ([9, 0, -9], [0.1, 0, None])}, [["v"]], "effective weight", "log-SNR λ"),
        training_charts.of_check({"v": ([0, 500], [None, None])}, [["v"]], "gain", "time step t"),
    ],
)
def test_figures_of_odd_curves_are_drawn_too(figure):
    svg = picture(figure)
    assert svg.startswith("<svg") and "NaN" not in svg and "undefined" not in svg


def test_the_gradient_is_averaged_over_the_seeds_that_have_a_number_and_stands_beside_what_it_is_clipped_to(
    config,  # noqa: F811
):
    config["parameterizations"] |= {"long": {"target": "v", "training": {"gradient_clip": 5.0}}}
    config["grid"] |= {"parameterizations": ["v", "long", "x0"], "seeds": [0, 1]}
    norms = {("v", 0): [4.0, 100.0, None], ("v", 1): [2.0, None, None], ("long", 0): [0.5, 0.25, 8.0]}
    logs = {
        Cell("digits", name, "tiny", seed): [
            {"step": 10 * place, "loss": 1.0, "gradient_norm": norm} for place, norm in enumerate(each, 1)
        ]
        for (name, seed), each in norms.items()
    }
    found = panels.of_training(config, "tiny", logs)
    shown = specification(found["gradient"])
    assert [tuple(row.values()) for row in shown["data"]["values"]] == [
        *(("v", 10, 3.0), ("v", 20, 100.0), ("v", 30, None)),
        *(("long", 10, 0.5), ("long", 20, 0.25), ("long", 30, 8.0)),
    ]
    clipped, line = shown["layer"]
    assert clipped["data"]["values"] == [{"clipped to": 1.0}, {"clipped to": 5.0}]
    assert clipped["mark"]["type"] == "rule" and line["encoding"]["y"]["scale"]["type"] == "log"
    svg = picture(found["gradient"])
    assert svg.count('aria-roledescription="rule mark"') == 2 and {"v", "long"} <= set(words(svg))
    assert found["clipped"] is None  # these logs do not tell


def test_curves_that_coincide_are_one_line_and_its_label_names_all():
    names = ["epsilon", *(f"epsilon_in_space_{place}" for place in range(8)), "v"]
    curves = {name: ([0, 9], [0.1, 2.0 if name == "v" else 1.0]) for name in names}
    figure = training_charts.of_check(curves, [names[:-1], ["v"]], "gain", "time step t")
    assert {row["parameterization"] for row in specification(figure)["data"]["values"]} == {
        "epsilon, epsilon_in_space_0, epsilon_in_space_1 and 6 others",
        "v",
    }
    shown = re.findall(r"<tspan[^>]*>([^<]*)<", picture(figure))
    assert {"epsilon, epsilon_in_space_0,", "epsilon_in_space_1 and 6 others"} <= set(shown)
    assert ", ".join(names[:-1]) in str(figure)  # who cannot see it is told all


def test_a_log_snr_falls_from_the_image_to_the_noise():
    drawn = specification(training_charts.of_check({"v": ([9, -9], [0.1, 0.2])}, [["v"]], "weight", "log-SNR λ"))
    assert drawn["encoding"]["x"]["scale"]["reverse"] is True
    drawn = specification(training_charts.of_check({"v": ([0, 9], [0.1, 0.2])}, [["v"]], "gain", "time step t"))
    assert drawn["encoding"]["x"]["scale"]["reverse"] is False


@pytest.mark.parametrize("length", [1, POINTS, POINTS + 1, 35_000])
def test_a_long_curve_is_thinned_and_keeps_its_end_and_its_gaps(length):
    curve = [(step, 1.0) for step in range(length)]
    curve[length // 3] = (length // 3, None)
    found = thinned(curve)
    assert len(found) <= POINTS + 2 and found[-1] == curve[-1] and curve[length // 3] in found
    assert found == sorted(found, key=lambda point: point[0])


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 2500, False, [0, 500, 1000, 1500, 2000, 2500]),
        (-10, 10, False, [-10, -5, 0, 5, 10]),
        (0.93, 1.06, True, [0.95, 0.975, 1, 1.025, 1.05]),
        (0.4, 4, True, [0.5, 1, 2]),
        (0.1, 50, True, [0.1, 0.3, 1, 3, 10, 30]),
        (0.0055, 281, True, [0.01, 0.1, 1, 10, 100]),
        (1e-3, 1e5, True, [1e-3, 1e-1, 1e1, 1e3, 1e5]),
    ],
)
def test_axes_are_marked_at_round_numbers(low, high, log, expected):
    assert ticks(low, high, log=log) == pytest.approx(expected)


def test_the_labels_of_an_axis_are_its_values():
    """Vega's own formats round 250 to 300 where it would have put its ticks elsewhere."""
    figure = training_charts.clipped_curves({"v": ([0, 1250], [0.1, 0.2])}, ["v"], "tiny")
    assert {"0", "250", "500", "750", "1,000", "1,250"} <= set(words(picture(figure)))


def test_every_tick_is_drawn():
    """Vega thins the ticks that it is given to the number that it was asked for."""
    figure = training_charts.clipped_curves({"v": ([0, 2500], [0.1, 0.2])}, ["v"], "tiny")
    assert {"0", "500", "1,000", "1,500", "2,000", "2,500"} <= set(words(picture(figure)))


def test_a_metric_of_any_title_is_drawn():
    metric = """FD of "x.y"[0], it's `odd`"""
    frame = rows({"v": [40.0, 41.0, 42.0], "epsilon": [50.0, 51.0, 52.0]})
    svg = picture(charts.values(frame, ["v", "epsilon"], metric, "tiny"))
    assert svg.count('aria-roledescription="point"') == 6 and f"{metric}, lower is better" in words(svg)
    svg = picture(charts.limits(frame, ["v", "epsilon"], metric, "tiny", 10.0, None, {}))
    assert svg.count('aria-roledescription="point"') == 6


def test_the_axis_of_values_that_are_equal_has_room():
    for value in (0.0, 3.0):
        low, high = axis("x", [value, value])["scale"]["domain"]
        assert low < value < high


def test_35_lines_look_different():
    order = [str(place) for place in range(35)]
    found = looks("name", order, order, legend=True, dash=True)
    pairs = zip(found["color"]["scale"]["range"], map(tuple, found["strokeDash"]["scale"]["range"]), strict=True)
    assert len(set(pairs)) == 35


def test_outputs_and_objectives_are_mapped_where_they_are_crossed(config):  # noqa: F811
    make_grid(config, APART)
    assert heat_maps.heat_maps(table(config), "FD") == []  # each in its own space: a diagonal
    config["parameterizations"] |= {
        f"{target}_in_{space}": {"target": target, "loss_space": space}
        for target in ("v", "x0")
        for space in ("v", "x0")
    }
    means = {"v_in_v": [20, 22], "v_in_x0": [30, 32], "x0_in_v": [40, 42], "x0_in_x0": [50, 52]}
    make_grid(config, means)
    (figure,) = heat_maps.heat_maps(table(config), "FD")
    assert {"21.00", "31.00", "41.00", "51.00", "loss in v", "loss in x0"} <= set(words(picture(figure)))
    encoding = specification(figure)["encoding"]
    assert (encoding["x"]["field"], encoding["y"]["field"]) == ("output", "objective")
    fill = specification(figure)["layer"][0]["encoding"]["color"]
    assert fill["scale"]["type"] == "linear" and fill["scale"]["domain"] == [21, 51]
    words_on = specification(figure)["layer"][1]["encoding"]["color"]["condition"]
    assert words_on == {"test": "datum['FD'] > 36.0", "value": "white"}
    assert specification(figure)["data"]["values"][1] == {
        "output": "v",
        "objective": "loss in x0",
        "FD": 31.0,
        "values": 2,
        "text": "31.00",
    }


def test_each_path_has_a_map_of_what_finished_there(config):  # noqa: F811
    config["parameterizations"] |= {
        f"{target}_{weighting}_{schedule}": {"target": target, "weighting": weighting, "schedule": schedule}
        for target in ("v", "x0")
        for weighting in ("constant", "snr")
        for schedule in ("linear", "cosine")
    }
    names = list(config["parameterizations"])[-8:]
    config["grid"]["seeds"] = [0, 1, 2]
    make_grid(config, {name: [10 * (place + 1), 10 * (place + 1) + 3] for place, name in enumerate(names)})
    make_cell(config, names[0], 2, None, reason="the loss was not finite at step 3")
    linear, cosine = map(specification, heat_maps.heat_maps(table(config), "FD"))
    assert [row["objective"] for row in linear["data"]["values"][:2]] == [
        f"loss in its own space, weighting {weighting}" for weighting in ("constant", "snr")
    ]
    assert [row["FD"] for row in linear["data"]["values"]] == [11.5, 31.5, 51.5, 71.5]
    assert [row["FD"] for row in cosine["data"]["values"]] == [21.5, 41.5, 61.5, 81.5]
    assert {row["values"] for row in linear["data"]["values"]} == {2}
    assert linear["layer"][0]["encoding"]["color"]["scale"]["type"] == "log"


def test_a_probe_has_places_where_its_ranges_follow_each_other():
    ranges = {"a_1": (0, 0.1), "a_2": (0.1, 0.4), "a_3": (0.4, 1), "a_early": (0, 0.259), "a_end": (0.98, 1)}
    assert probe_charts.levels(ranges) == pytest.approx({"a_1": 0.05, "a_2": 0.25, "a_3": 0.7})
    assert probe_charts.levels({"e_2": 2, "e_0": 0, "e_m2": -2, "e": None}) == {"e_2": 2, "e_0": 0, "e_m2": -2}
    assert probe_charts.levels({"one": 1, "two": 2}) == {}


def test_what_a_probe_found_is_a_line_per_variant(config):  # noqa: F811
    config["probes"] = ["excess", "gradient"]
    config["grid"] |= {"parameterizations": ["v", "x0"], "seeds": [0, 1], "scales": ["tiny", "large"]}
    names = ["excess_6", "excess_4", "excess_2", "excess_0", "excess_m2", "excess_m4"]

    def found_of(cell):
        size = {"v": 1, "x0": 3}[cell.parameterization] * (1 + cell.seed) * {"tiny": 1, "large": 100}[cell.scale]
        return {"values": {name: size * (place + 1.0) for place, name in enumerate(names)}}

    records = {cell: found_of(cell) for cell in cells.grid(config) if cell.scale == "tiny"}
    (figure,) = probe_charts.of_levels(config, "tiny", records)
    found = specification(figure)["data"]["values"]
    assert [row["log-SNR λ"] for row in found[:6]] == [6, 4, 2, 0, -2, -4]
    assert specification(figure)["encoding"]["x"]["scale"]["reverse"] is True
    assert [row["excess"] for row in found if row["parameterization"] == "x0"] == [4.5, 9, 13.5, 18, 22.5, 27]


def test_what_a_probe_found_over_the_training_is_a_line_per_variant(config, project, monkeypatch):  # noqa: F811
    config["probes"] = ["excess", "gradient"]
    config["parameterizations"]["short"] = {"target": "v", "training": {"steps": 900}}
    config["grid"] |= {"parameterizations": ["v", "short", "x0"], "seeds": [0, 1], "scales": ["tiny", "large"]}
    names = ["excess_6", "excess_4", "excess_2", "excess_0", "excess_m2", "excess_m4"]

    def numbers(size):
        return {"excess": 1e6, **{name: size * (place + 1.0) for place, name in enumerate(names)}}

    for cell in cells.grid(config):
        size = {"v": 1, "short": 10, "x0": 3}[cell.parameterization] * (1 + cell.seed)
        record = {"values": numbers(size), "snapshots": {"1000": numbers(4 * size), "200": numbers(9 * size)}}
        if cell.parameterization == "x0" and cell.seed == 1:
            record = {"values": None}  # diverged
        if cell.scale == "tiny":
            write_json(cell.folder / "probe.json", record)
    monkeypatch.setattr(probe_charts.probes, "read_record", read_json)
    (figure,) = probe_charts.of_course(config, "tiny", probe_charts.records(config, "tiny"))
    found = [(row["parameterization"], row["step"], row["excess"]) for row in specification(figure)["data"]["values"]]
    mean = 3.5  # of 1 … 6
    assert found == [
        *(("v", step, 1.5 * times * mean) for step, times in ((200, 9), (1000, 4), (2500, 1))),
        *(("short", step, 15 * times * mean) for step, times in ((200, 9), (900, 1), (1000, 4))),
        *(("x0", step, 3 * times * mean) for step, times in ((200, 9), (1000, 4), (2500, 1))),
    ]
    assert probe_charts.of_course(config, "large", probe_charts.records(config, "large")) == []
    for path in project.glob("results/digits/*/tiny/*/probe.json"):
        write_json(path, {"values": read_json(path)["values"]})
    assert probe_charts.of_course(config, "tiny", probe_charts.records(config, "tiny")) == [], "one step is no course"


def test_the_rows_to_explore_are_those_of_the_table(config, project):  # noqa: F811
    config["parameterizations"] |= {
        name: {"target": "v", "training": {"learning_rate": rate}}
        for name, rate in {"slow": 1e-4, "fast": 1e-3}.items()
    }
    make_grid(config, {"slow": [40, 41], "fast": [20]})
    make_cell(config, "fast", 1, None, reason="the loss was not finite at step 37")
    folder = project / "results/digits"
    line = {"loss": 0.5, "time": 0}
    speeds = [(100.0, 3_000_000_000), (900.0, 5_000_000_000), (200.0, 4_000_000_000)]
    lines = [
        {**line, "step": step, "images_per_second": speed, "memory_peak_bytes": memory}
        for step, (speed, memory) in enumerate(speeds, 1)
    ]
    (folder / "slow/tiny/seed0/train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame = table(config)
    frame.loc[0, "error"] = 0.75
    found = explorer.content(config, frame, Path("results/digits"), panels.training_logs(config))
    assert [found["rows"][0][name] for name in explorer.COSTS] == [0.5, 200, 5]
    assert (found["rows"][0]["error"], found["rows"][0]["clipped steps, %"]) == (0.75, 12.5)
    assert found["rows"][0]["manifest"] == "slow/tiny/seed0/manifest.json" and found["rows"][2]["manifest"] is None
    assert [row["cell"] for row in found["rows"]] == [
        f"{name}-tiny-{seed}" for name in ("slow", "fast") for seed in config["grid"]["seeds"]
    ]
    assert [row["FD (odd features)"] for row in found["rows"]] == [40, 41, None, 20, None, None]
    assert [row["status"] for row in found["rows"]] == [
        *["finished"] * 2,
        "missing",
        "finished",
        "diverged",
        "missing",
    ]
    assert found["rows"][0]["training.learning_rate"] == 1e-4 and found["rows"][0]["training, minutes"] == 0.5
    assert found["quantities"][0] == "FD (odd features)" and found["quantities"][-1] == "peak memory, GB"
    assert found["axes"] == ["parameterization", "seed", "training.learning_rate"]
    assert "NaN" not in as_json(found)


def test_of_very_many_comparisons_the_page_lists_those_with_the_lowest(config):  # noqa: F811
    names = [f"v_{place:02d}" for place in range(26)]
    config["parameterizations"] |= {
        name: {"target": "v", "training": {"learning_rate": 1e-4 * (1 + place)}} for place, name in enumerate(names)
    }
    config["grid"]["seeds"] = [0, 1]
    make_grid(config, {name: [40 + place, 41.5 + place] for place, name in enumerate(names)})
    text = " ".join(Page(render(config)).text.split())
    assert "25 of 325 comparisons: those of the lowest mean; comparisons.csv has all" in text
    listed = text.split("comparisons.csv has all")[1].split("A plain check")[0]
    assert listed.count("v_00") == 25 and "v_24 / v_25" not in listed


def test_the_page_of_the_demo_has_only_valid_figures(config):  # noqa: F811
    make_grid(config, APART)
    for name, found in drawn(render(config)).items():
        if name != "explore":
            text = re.sub(r"var\(--[\w-]+\)", "#123456", json.dumps(found))
            assert vl_convert.vegalite_to_svg({**json.loads(text), "width": 360}).startswith("<svg"), name
