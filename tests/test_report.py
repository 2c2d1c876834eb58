"""The report says what its data say, and no more; built on a small tree of made-up results."""

import base64
import io
import itertools
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import as_measured, sampled_facts
from PIL import Image
from synthetic import Files

from targetwise import cells
from targetwise.data import store
from targetwise.files import read_json, sha256_of_array, write_json, write_text
from targetwise.recipe import config as configuration
from targetwise.report import charts, page, samples
from targetwise.report.effects import tables
from targetwise.report.page import duration, tiny
from targetwise.report.table import table as table_of
from targetwise.report.words import number

DIGEST = "0" * 64
ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.0"},
    "machine": {"host": "node1", "system": "Linux x86_64", "cpu": "CPU", "cores": 2},
    "code": {"commit": "c" * 40, "modified": True},
}
#: Three seeds each; every pair is far apart against its scatter.
APART = {"epsilon": [60, 61, 62.5], "v": [40, 41, 42], "x0": [50, 51.5, 52]}
#: The means differ, and the seeds scatter more.
MIXED = {"epsilon": [60, 40, 50], "v": [41, 60, 52], "x0": [50, 45, 61]}


class Page(HTMLParser):
    """A page's text, and what its tags are and load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.loads, self.links, self.ids = [], [], [], []
        self.text, self.silent = "", 0
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.silent += tag in ("style", "script")
        for key, value in attributes:
            if key == "href" and tag == "a":
                self.links.append(value)
            elif key in ("src", "href", "srcset", "data", "poster", "action"):
                self.loads.append(value)
            elif key == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        self.silent -= tag in ("style", "script")

    def handle_data(self, text):
        if not self.silent:
            self.text += f" {text}"


@pytest.fixture
def config(study, project):
    """The demo's study in an empty project."""
    study["sampling"]["images"] = 40
    return study


def row(cell, value, reason=None, marks=(), what="cell"):
    return {
        "key": DIGEST,
        "what": what,
        "cell": cell and vars(cell),
        "draw": 0 if what == "cell" else None,
        "file": None,
        "status": "diverged" if value is None else "finished",
        "reason": reason,
        "metric": "FD (odd features)",
        "value": value,
        "name": "frechet",
        "values": {} if value is None else {"frechet": value, "kid": 0.5},
        "n": 40,
        "mode": "native",
        "implementation": "clean-fid",
        "extractor": "odd",
        "extractor_sha256": "e" * 64,
        "reference": "digits train",
        "reference_sha256": "f" * 64,
        "reference_n": 1285,
        "samples_sha256": DIGEST,
        "model_sha256": DIGEST,
        "sampler": "ddim-50",
        "marks": list(marks),
        "seconds": 2.0,
        "environment": ENVIRONMENT,
    }


def make_cell(config, name, seed, value, *, scale="tiny", reason=None, marks=()):
    """Write what the jobs of one cell would have written; a value of None is a diverged cell."""
    cell = cells.Cell(config["study"], name, scale, seed)
    status = "diverged" if value is None else "finished"
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (0 if value is None else 40, 8, 8, 1), dtype=np.uint8)
    samples = cell.folder / "samples/ddim-50/draw0.npz"
    samples.parent.mkdir(parents=True)
    np.savez(samples, images)
    digest = sha256_of_array(images)
    made = sampled_facts(config, cell, "ddim-50", {"model_sha256": DIGEST, "status": status, "draw": 0})
    facts = {"status": status, "reason": reason, "seconds": 30.0, "environment": ENVIRONMENT}
    write_json(
        samples.with_suffix(".json"),
        {
            **facts,
            "draw": 0,
            "images": len(images),
            "samples_sha256": digest,
            "model_sha256": DIGEST,
            **made,
        },
    )
    write_json(
        cell.folder / "training.json",
        {
            **facts,
            "steps": 40,
            "final_loss": None if value is None else 0.25,
            "clipped_share": 0.125,
            "model_sha256": DIGEST,
            "finished_at": 1_700_000_000.0 + seed,
        },
    )
    write_json(cell.folder / "manifest.json", {})
    last = "null" if value is None else "0.25"
    lines = [
        '{"step": 20, "loss": 0.5, "clipped_share": 0.25, "time": 0}',
        f'{{"step": 40, "loss": {last}, "clipped_share": 0.0, "time": 1}}',
    ]
    write_text(cell.folder / "train.jsonl", "".join(f"{line}\n" for line in lines))
    write_json(
        cell.folder / "fid/ddim-50/draw0.json",
        as_measured(config, {**row(cell, value, reason, marks), "samples_sha256": digest}),
    )


def make_grid(config, values, **options):
    config["grid"]["parameterizations"] = list(values)
    for name, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            make_cell(config, name, seed, value, **options)


def make_check(config, name, **changes):
    """Write a check; what is changed to None is not in it."""
    effective = {"log_snr": [9.0, 0.0, -9.0], "effective_weight": [0.1, 0.05, 0.001 * len(name)]}
    content = {
        "target": name,
        "loss_space": name,
        "weighting": "constant",
        "round_trip": {
            "fp64": {"largest_error": 4.2e-14, "at_t": 989},
            "bf16": {"largest_error": 1.0, "at_t": 986},
        },
        "gain_to_x0": {"largest": 157.4, "at_t": 999},
        "ill_conditioned": {"gain_above": 10.0, "steps": 326, "ranges": [[674, 999]]},
        "curve": {"t": [0, 500, 999], "gain_to_x0": [0.01, 1, 157.4], "weight_in_x0_space": [9000.0, 1.0, 0.0]},
        "objective": effective,
        **changes,
    }
    content = {key: value for key, value in content.items() if value is not None}
    write_json(Path("results") / config["study"] / name / "check.json", content)


def render(config) -> str:
    return page.render(config, Path("results") / config["study"])


def drawn(html: str) -> dict[str, dict]:
    """Return the specification of each figure by its name."""
    found = re.findall(r'data-name="([^"]*)"><script type="application/json">(.*?)</script>', html, re.DOTALL)
    return {unescape(name): json.loads(text) for name, text in found}


def headline(html: str) -> str:
    return re.search(r'<p class="answer">(.*?)</p>', html, re.DOTALL).group(1)


def test_a_winner_is_named_with_its_evidence(config):
    make_grid(config, APART)
    html = render(config)
    assert headline(html) == (
        "v (41.00) gives the lowest FD (odd features), and its differences from x0 (51.17) and epsilon (61.17) are "
        "resolved over 3 seeds."
    )
    text = Page(html).text
    # Of the geometric means: 1 − (40·41·42 / (60·61·62.5))^⅓.
    assert "v is below epsilon by 33 % (95 % interval" in text
    assert re.search(r"epsilon / v 1\.49 1\.\d\d to 1\.\d\d < 0\.0001 3 worse", text)
    assert "does predicting epsilon, v or x0 give the lowest FD (odd features)" in text
    assert re.search(r"v 41\.00 1\.00 – 3 0 0 none", text)
    assert "epsilon − v +20.17 +19.45 to +20.88" in text


def test_what_is_not_resolved_is_not_claimed(config):
    make_grid(config, MIXED)
    html = render(config)
    assert headline(html).startswith("No difference in FD (odd features) is resolved: every interval includes 1")
    assert "does not show that they are equal" in headline(html)
    assert "gives the lowest" not in Page(html).text
    assert "shown to be the lowest" not in Page(html).text


def test_a_lowest_mean_without_every_difference_resolved_is_no_winner(config):
    config["comparison"]["smallest_difference"] = 0.01
    make_grid(config, {"epsilon": [90, 91, 92], "v": [40, 42, 41], "x0": [42, 41, 41.5]})
    html = render(config)
    assert headline(html) == (
        "The lowest FD (odd features) is that of v (41.00) or x0 (41.50): which of them is not certain. "
        "The other one is shown to be higher than at least one of these."
    )
    text = Page(html).text
    resolved, unresolved = text.split("Resolved:")[1].split("Not resolved:")
    assert "v is below epsilon" in resolved and "x0 is below epsilon" in resolved
    assert "v / x0 = 0.988" in unresolved and "or more would usually have been resolved" in unresolved


def test_where_no_scale_has_a_winner_those_it_may_be_are_named(config):
    config["comparison"]["smallest_difference"] = 0.01
    config["grid"]["scales"] = ["tiny", "large"]
    of = {"epsilon": [90, 91, 92], "v": [40, 42, 41], "x0": [42, 41, 41.5]}
    make_grid(config, of)
    make_grid(config, of, scale="large")
    same = "The lowest FD (odd features) is that of v or x0 at each of the 2 scales; it is not certain which."
    assert headline(render(config)) == same
    config["grid"]["scales"] = ["tiny", "large", "small", "medium"]
    make_grid(config, {"epsilon": of["v"], "v": of["epsilon"], "x0": of["x0"]}, scale="small")
    make_grid(config, MIXED, scale="medium")
    assert headline(render(config)) == (
        "At tiny and large, the lowest FD (odd features) is that of v or x0; at small, it is that of epsilon or x0; "
        "at medium, no parameterization is shown to be the lowest. Where several are named, it is not certain which."
    )


def test_what_is_equivalent_leads_together(config):
    make_grid(config, {"epsilon": [90, 91, 92], "v": [40, 42, 41], "x0": [42, 41, 41.5]})
    html = render(config)
    assert headline(html) == (
        "v (41.00) and x0 (41.50) give the lowest FD (odd features): they are equivalent within 10 %, and their "
        "differences from epsilon (91.00) are resolved."
    )
    assert "The smallest difference of interest was declared as 10 %" in Page(html).text


def test_with_a_baseline_only_it_is_compared_with(config):
    config["comparison"]["baseline"] = "epsilon"
    make_grid(config, APART)
    html = render(config)
    assert headline(html) == (
        "Compared with the baseline epsilon (61.17), FD (odd features) is lower with v (41.00) and x0 (51.17). The "
        "others were not compared with each other: that v (41.00) has the lowest mean is not a verdict."
    )
    text = Page(html).text
    assert "v / epsilon 0.67" in text and "x0 / epsilon 0.84" in text
    assert "v / x0" not in text and "x0 / v" not in text


def test_families_are_compared_within(config):
    config["comparison"]["families"] = {"outputs": ["epsilon", "v"]}
    make_grid(config, APART)
    html = render(config)
    assert headline(html).startswith("Among outputs: v (41.00) gives a lower FD (odd features) than epsilon (61.17)")
    assert "the chance that any of them in one family misses its true value is at most 5 %" in Page(html).text


def test_values_that_are_not_positive_are_compared_by_differences(config):
    make_grid(config, {"epsilon": [0.4, 0.5, 0.45], "v": [-0.1, 0.05, 0.0]})
    text = Page(render(config)).text
    assert "v is below epsilon by 0.47 (95 % interval" in text
    assert "every interval includes" not in text and "resolved when its interval does not include 0." in text


def test_where_the_spread_comes_from_is_told(config):
    # Every seed moves all values by the same factor, and nothing else does: all of the spread is shared.
    factors = [1.0, 1.1, 1.3]
    make_grid(config, {name: [mean * each for each in factors] for name, mean in {"epsilon": 60, "v": 40}.items()})
    text = Page(render(config)).text
    shared = np.std(np.log(factors), ddof=1)
    assert f"{100 * shared:.0f} % 0 %" in text.split("seeds needed without common random numbers")[1]


def test_the_error_of_a_value_stands_beside_it(config):
    make_grid(config, APART)
    for seed, error in enumerate([0.3, 0.4, 1.2]):
        path = Path(f"results/digits/v/tiny/seed{seed}/fid/ddim-50/draw0.json")
        write_json(path, {**read_json(path), "errors": {"frechet": error}})
    text = Page(render(config)).text
    assert "40.00 ± 0.30" in text and "42.00 ± 1.20" in text
    # Of one value: √((0.3² + 0.4² + 1.2²)/3) = 0.75.
    assert re.search(r"v 41\.00 1\.00 0\.75 3 0 0 none", text)


def crossed(config):
    """Define two outputs with two weightings each, which are factors, and return their names."""
    variants = {
        f"{target}_{weighting}": {"target": target, "weighting": weighting}
        for target in ("epsilon", "v")
        for weighting in ("constant", "snr")
    }
    config["parameterizations"].update(variants)
    config["comparison"]["factors"] = ["target", "weighting"]
    return list(variants)


def test_the_effects_of_factors_are_told(config):
    variants = crossed(config)
    # v is half of epsilon at both weightings, the weighting does nothing, and seeds move all by the same factor.
    noise = {0: 1.0, 1: 1.1, 2: 0.9}
    jitter = itertools.cycle([1.001, 0.999, 1.0, 0.9995, 1.0005])
    values = {
        name: [(40 if "epsilon" in name else 20) * noise[seed] * next(jitter) for seed in noise] for name in variants
    }
    make_grid(config, values)
    html = render(config)
    text = Page(html).text
    effects = text.split("Effects of factors")[1]
    assert re.search(r"target epsilon / v 2\.00 \S+ to \S+ 2 yes", effects)
    assert re.search(r"weighting constant / snr 1\.00 \S+ to \S+ 2 no", effects)
    shown = drawn(html)["effects"]["data"]["values"]
    assert [row["comparison"] for row in shown] == ["target: epsilon / v", "weighting: constant / snr"]
    assert [round(row["ratio"], 2) for row in shown] == [2, 1] and [row["resolved"] for row in shown] == [True, False]
    assert "effects.csv" in text
    table = tables(table_of(config), config)
    assert list(table) == ["effects"]
    assert set(table["effects"]["part"]) == {"terms", "levels", "effects", "interactions"}


def test_a_curve_over_a_field_is_drawn_and_told(config):
    rates = {"low": 0.001, "middle": 0.002, "high": 0.008}
    config["parameterizations"].update(
        {name: {"target": "v", "training": {"learning_rate": rate}} for name, rate in rates.items()}
    )
    config["comparison"]["curves"] = ["training.learning_rate"]
    make_grid(config, {"low": [40, 41, 42], "middle": [20, 21, 21.5], "high": [60, 61, 62]})
    html = render(config)
    text = Page(html).text
    assert "FD (odd features) over training.learning_rate" in text
    assert "training.learning_rate: the lowest is at 0.002." in text
    assert "Means over seeds (geometric) at the values that were run" in text
    assert "0.001: 40.99, 0.002: 20.82, 0.008: 60.99" in html
    assert list(tables(table_of(config), config)["curves"]["x"]) == [0.001, 0.002, 0.008]


def test_a_curve_that_is_lowest_at_its_end_has_no_optimum(config):
    """As over the steps of one training: a parabola through a curve that still falls says nothing."""
    rates = {f"rate_{rate}": rate for rate in (1000, 2000, 4000, 8000)}
    config["parameterizations"].update(
        {name: {"target": "v", "training": {"learning_rate": rate}} for name, rate in rates.items()}
    )
    config["comparison"]["curves"] = ["training.learning_rate"]
    make_grid(config, {name: [80000 / rate, 82000 / rate, 79000 / rate] for name, rate in rates.items()})
    told = "the lowest is at 8,000. That is where the values end, so a lower one may lie beyond."
    assert told in Page(render(config)).text


def test_an_effect_that_depends_on_another_factor_is_said_to(config):
    variants = crossed(config)
    jitter = itertools.cycle([1.001, 0.999, 1.0, 0.9995, 1.0005])
    values = {name: [(40 if name == "v_snr" else 20) * next(jitter) for _ in range(3)] for name in variants}
    make_grid(config, values)
    html = render(config)
    assert "not the same at every level: resolved below for target × weighting" in Page(html).text
    assert "<details open>\n<summary>Interactions" in html


def test_what_is_not_declared_makes_no_table(config):
    make_grid(config, APART)
    assert tables(table_of(config), config) == {}
    html = render(config)
    assert "Effects of factors" not in html and "effects.csv" not in html and "curves.csv" not in html


def test_of_many_comparisons_those_with_the_lowest_are_drawn():
    names = [f"v{place:02d}" for place in range(12)]
    summary = pd.DataFrame({"parameterization": names, "mean": range(12, 0, -1)})
    pairs = pd.DataFrame([{"a": a, "b": b} for a, b in itertools.combinations(names, 2)])
    shown = charts.worth_drawing(pairs, summary)
    assert len(pairs) == 66 and len(shown) == 11
    assert all("v11" in (row.a, row.b) for row in shown.itertuples())
    assert charts.worth_drawing(pairs.head(24), summary).equals(pairs.head(24))


def test_two_parameterizations_are_compared_in_the_singular(config):
    make_grid(config, {"epsilon": [60, 61, 62.5], "v": [40, 41, 42]})
    assert headline(render(config)) == (
        "v (41.00) gives a lower FD (odd features) than epsilon (61.17), and the difference is resolved over 3 seeds."
    )


def test_one_seed_gives_no_interval(config):
    config["grid"]["seeds"] = [0]
    make_grid(config, {"epsilon": [60], "v": [40]})
    html = render(config)
    assert headline(html) == (
        "Whether any difference is real cannot be said, because there is only one seed. Lowest first, the FD (odd "
        "features) is v (40.00) and epsilon (60.00)."
    )
    assert "epsilon / v = 1.50 (one seed in common, so no interval)" in Page(html).text
    assert "is wide" not in html


def test_one_parameterization_is_compared_with_nothing(config):
    make_grid(config, {"v": [40, 41, 42]})
    html = render(config)
    assert headline(html).startswith("Only v (41.00) was measured; nothing else is in the grid")
    assert "what FD (odd features) does predicting v give?" in Page(html).text
    assert "Comparisons" not in html and "Paired differences" not in html


def test_diverged_cells_are_named_and_qualify_the_winner(config):
    make_grid(config, APART | {"v": [40, 41]})
    make_cell(config, "v", 2, None, reason="the loss was not finite at step 37")
    html = render(config)
    assert headline(html).endswith("are resolved over 2 seeds; but 1 of its 3 seeds diverged.")
    assert "Diverged: v-tiny-2: the loss was not finite at step 37" in Page(html).text
    assert "judged by the runs that went well" in html
    assert "8 of 9 cells finished" in html


def test_a_parameterization_that_always_diverges_is_not_compared(config):
    config["grid"]["parameterizations"] = ["epsilon", "x0"]
    for seed in range(3):
        make_cell(config, "epsilon", seed, 60 + seed)
        make_cell(config, "x0", seed, None, reason="the loss was not finite at step 3")
    html = render(config)
    assert headline(html).startswith("Only epsilon (61.00) was measured; nothing else has a value")
    assert html.count("no samples") == 1


def test_who_was_not_compared_is_said(config):
    make_grid(config, {"epsilon": [60, 61, 62.5], "v": [40, 41, 42], "x0": []})
    assert headline(render(config)) == (
        "Provisional, with 6 of 9 cells finished. v (41.00) gives a lower FD (odd features) than epsilon (61.17), "
        "and the difference is resolved over 3 seeds. x0 has no value."
    )


def test_missing_cells_are_named_and_the_answer_is_provisional(config):
    make_grid(config, APART | {"x0": [50]})
    html = render(config)
    assert headline(html).startswith("Provisional, with 7 of 9 cells finished. ")
    assert "x0-tiny-1: results/digits/x0/tiny/seed1/fid/ddim-50/draw0.json was not made" in html
    assert re.search(r"x0 50\.00 – – 1 0 2 none", Page(html).text)


def test_a_cell_without_all_its_draws_is_missing(config):
    config["sampling"]["draws"] = 2
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41]})
    html = render(config)
    assert "0 of 6 cells finished" in html
    assert "epsilon-tiny-0: results/digits/epsilon/tiny/seed0/fid/ddim-50/draw1.json was not made" in html


def test_nothing_done_is_a_page_too(config):
    html = render(config)
    assert headline(html) == "There is no answer, because no parameterization has a value."
    assert "0 of 9 cells finished" in html
    assert "Not checked yet: epsilon, v and x0." in html


def test_nothing_done_at_several_scales_is_said_once(config):
    config["grid"]["scales"] = ["tiny", "large"]
    assert headline(render(config)) == "There is no answer, because no parameterization has a value."


@pytest.mark.parametrize(
    ("large", "expected"),
    [
        (APART, "v gives the lowest FD (odd features) at each of the 2 scales, and its differences"),
        (
            {"epsilon": APART["v"], "v": APART["x0"], "x0": APART["epsilon"]},
            "The scales do not all agree: v gives the lowest FD (odd features) at tiny; "
            "epsilon gives the lowest FD (odd features) at large.",
        ),
        (MIXED, "at large, no parameterization is shown to be the lowest."),
        (
            {"epsilon": [90, 91, 92], "v": [40, 42, 41], "x0": [42, 41, 41.5]},
            "v gives the lowest FD (odd features) at tiny; at large, it is that of v or x0. "
            "Where several are named, it is not certain which.",
        ),
    ],
)
def test_scales_are_summed_up(config, large, expected):
    config["grid"]["scales"] = ["tiny", "large"]
    make_grid(config, APART)
    make_grid(config, large, scale="large")
    html = render(config)
    assert expected in headline(html)
    for name in ("intervals-large", "values-large"):
        assert re.search(rf'<h3>Scale large</h3><div class="chart" [^>]*data-name="{name}"', html)
    config["scales"]["large"]["global_batch"] = 64
    assert "256 (tiny) and 64 (large) images" in Page(render(config)).text


def test_a_caution_of_every_scale_is_said_once(config):
    config["grid"]["scales"] = ["tiny", "large"]
    two = {name: APART[name] for name in ("epsilon", "v")}
    make_grid(config, two)
    make_grid(config, two, scale="large")
    caution = "ach comparison is judged by the variance of its own paired differences"
    text = Page(render(config)).text
    assert text.count(caution) == 1 and f"At tiny: e{caution}" not in text
    for seed in range(3):
        Path(f"results/digits/v/large/seed{seed}/fid/ddim-50/draw0.json").unlink()
    assert f"At tiny: e{caution}" in Page(render(config)).text


def test_the_lowest_mean_comes_first_and_what_has_none_last(config):
    make_grid(config, APART | {"epsilon": [], "x0_snr": [45, 46, 47]})
    table = render(config).split('<h2 id="table">')[1].split("</table>")[0]
    assert re.findall(r'<th scope="row" class="name">(\w+)</th>', table) == ["v", "x0_snr", "x0", "epsilon"]


def again(html: str) -> str:
    return html.split('<h2 id="again">')[1].split("</section>")[0]


def commands(html: str) -> list[str]:
    return [re.sub("<[^>]*>", "", each) for each in re.findall(r'<code class="copied">(.*?)</code>', again(html))]


def test_how_to_run_it_again_is_said_with_what_ran(config):
    installed = ["make setup", ". .venv/bin/activate"]
    study = [
        "snakemake --cores all all --configfile results/digits/study.json",
        "snakemake --profile slurm all --configfile results/digits/study.json",
    ]
    assert commands(render(config)) == [*installed, *study]
    make_grid(config, APART)
    html = render(config)
    cell = "targetwise reproduce cell@epsilon-tiny-0 --configfile results/digits/study.json"
    assert commands(html) == [f"git checkout {'c' * 40}", *installed, *study, cell]
    assert Page(html).links.count("#again") == 2, "from the answer, and from the list of parts"
    text = Page(again(html)).text
    assert "there were uncommitted changes, which the commit does not hold" in text
    assert "The recorded jobs took 9 min 18 s in all." in text  # nine times 30, 30 and 2 seconds
    for seed, commit in enumerate((None, "d" * 40)):
        path = Path(f"results/digits/v/tiny/seed{seed}/training.json")
        environment = {**ENVIRONMENT, "code": {"commit": commit, "modified": False}}
        write_json(path, {**read_json(path), "environment": environment})
    html = render(config)
    assert commands(html)[:2] == [f"git checkout {each * 40}" for each in "cd"]
    text = Page(again(html)).text
    assert "1 job ran without a known commit" in text and "(25 jobs)" in text


def parts(html: str) -> tuple[list[str], list[str]]:
    """Return where the list of parts leads, and the parts."""
    return re.findall('href="#([^"]*)"', html.split("</nav>")[0]), re.findall('<h2 id="([^"]*)">', html)


@pytest.mark.parametrize("scales", [["tiny"], ["tiny", "large"]])
def test_every_part_is_listed_and_no_level_of_headings_is_left_out(config, scales):
    config["grid"]["scales"] = scales
    for scale in scales:
        make_grid(config, APART, scale=scale)
    make_check(config, "v")
    html = render(config)
    listed, there = parts(html)
    assert listed == there and {"spread", "again"} <= set(there)
    others = html.split('<section class="across" aria-labelledby="samples">')
    levels = [int(level) for level in re.findall(r"<h(\d)", others[0] + others[1].split("</section>", 1)[1])]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_number_that_needs_a_mark_shows_it(config):
    make_grid(config, APART, marks=["fewer than 2,048 samples"])
    text = Page(render(config)).text
    assert "Marked on 9 of 9 values: fewer than 2,048 samples." in text
    assert re.search(r"v 41\.00 1\.00 – 3 0 0 fewer than 2,048 samples", text)


def test_floor_and_ceiling_appear_where_they_were_measured(config):
    make_grid(config, APART)
    assert "untrained" not in render(config)
    write_json(Path("results/digits/floor.json"), row(None, 10.25, what="floor"))
    cell = cells.Cell("digits", "v", "tiny", 0)
    write_json(Path("results/digits/v/tiny/ceiling.json"), row(cell, 1853.1, what="ceiling"))
    html = render(config)
    assert "Held-out real images have 10.25, networks that were never trained 1,853." in Page(html).text
    assert "“Real” are held-out real images (10.25). “Untrained” are networks that were never trained." in html
    dots, *_, untrained, real = drawn(html)["limits-tiny"]["layer"]
    assert (real["data"]["values"][0], real["mark"]["align"]) == (
        {"FD (odd features)": 10.25, "what": "real 10.25"},
        "left",
    )
    assert untrained["data"]["values"][0]["what"] == "untrained 1,853"
    assert dots["encoding"]["x"]["scale"]["type"] == "log"
    config["bounds"] = False
    assert "limits-tiny" not in drawn(render(config))


def test_a_row_of_samples_is_one_latent_and_the_nearest_training_images_stand_beside(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40]})
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))
    real = store.load(Path("data/digits"), "train").images
    path = Path("results/digits/v/tiny/seed0/samples/ddim-50/draw0.npz")
    with np.load(path) as archive:
        made = archive["arr_0"].copy()
    made[3] = np.where(real[77] > 0, real[77], 1)  # nearer to this one than to any other
    np.savez(path, made)
    digest = {"samples_sha256": sha256_of_array(made)}
    for record in (path.with_suffix(".json"), Path("results/digits/v/tiny/seed0/fid/ddim-50/draw0.json")):
        write_json(record, {**read_json(record), **digest})
    html = render(config)
    told = re.findall(r'<span class="muted">(seed \d|training set)</span>', html)
    assert told == 2 * ["seed 0", "seed 0", "training set"]  # of each block
    shown = [pixels(source) for source in Page(html).loads if source.startswith("data:image/png;base64,")]
    first = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    assert {each.shape for each in shown} == {(8 * 9 - 1, 8)}  # 8 images of 8 pixels, and one between
    for place in range(16):
        block, rows = place // 8, slice(9 * (place % 8), 9 * (place % 8) + 8)
        epsilon, near_epsilon, v, _, training = shown[5 * block : 5 * block + 5]
        assert (epsilon[rows] == first[place, :, :, 0]).all()
        assert (v[rows] == made[place, :, :, 0]).all()
        assert (training[rows] == real[place, :, :, 0]).all()
        distances = np.square(first[place].astype(float) - real.astype(float)).sum(axis=(1, 2, 3))
        assert (near_epsilon[rows] == real[distances.argmin(), :, :, 0]).all()
    assert (shown[3][27:35] == real[77, :, :, 0]).all()


def test_samples_are_of_a_seed_that_all_have(config):
    make_grid(config, {"epsilon": [60, 61, 62], "v": [40, 41, 42], "x0": []})
    for seed in (0, 2):
        Path(f"results/digits/v/tiny/seed{seed}/samples/ddim-50/draw0.npz").unlink()
    html = render(config)
    assert re.findall(r'<span class="muted">(seed \d)</span>', html) == 4 * [
        "seed 1"
    ]  # of two variants, in two blocks
    Path("results/digits/v/tiny/seed1/samples/ddim-50/draw0.npz").unlink()
    assert re.findall(r'<span class="muted">(seed \d)</span>', render(config)) == 2 * ["seed 0"]


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("L"))


def test_many_variants_have_fewer_images_each(config):
    frame = pd.DataFrame([{"setting": "tiny", "parameterization": f"v{place}"} for place in range(300)])
    assert samples.latents(frame) == 8
    assert samples.latents(pd.concat([frame.assign(setting=f"scale {place}") for place in range(10)])) == 4


def test_settings_that_differ_in_how_far_training_was_are_one_course(config):
    """Each stop shows its own samples; those of another sampler are another course."""
    last = config["training"]["steps"]
    config["training"]["snapshots"] = [200, 1000]
    config["samplings"] = {
        "last": {"snapshot": last},
        "few": {"steps": 10},
        "later": {"snapshot": 1000},
        "early": {"snapshot": 200},
    }
    config["grid"] |= {"parameterizations": ["v"], "scales": ["tiny", "small"], "seeds": [0, 1]}
    config["grid"]["samplings"] = list(config["samplings"])
    files = Files(config)
    for cell in files.cells:
        files.finish(cell, [200, 400])
    found = {each["name"]: each for each in samples.courses(config, table_of(config))}
    stops = {name: each["stops"] for name, each in found.items()}
    assert stops["tiny, last"] == [("tiny, early", 200), ("tiny, later", 1000), ("tiny, last", None)]
    assert stops["tiny, few"] == [("tiny, few", None)]
    assert list(stops) == ["tiny, last", "tiny, few", "small, last", "small, few"]
    a_draw = 1.0 + 1.0  # sampled and measured, as Files writes it
    assert found["tiny, last"]["seconds"] == 2 * 2 * a_draw and found["tiny, few"]["seconds"] == 0
    html = render(config)
    shown = re.findall(r'data-setting="(.+?)" data-course="(.+?)" data-stop="(.+?)"', html)
    assert shown[:4] == [
        ("tiny, early", "tiny, last", "step 200"),
        ("tiny, later", "tiny, last", "step 1,000"),
        ("tiny, last", "tiny, last", "the end"),
        ("tiny, few", "tiny, few", "the end"),
    ]
    assert "All stops but the last cost 16 s of sampling and measuring" in " ".join(Page(html).text.split())
    ceiling = row(files.cells[0], 1853.1, what="ceiling") | {"sampler": "early"}
    write_json(Path("results/digits/v/tiny/ceiling.json"), ceiling)
    figures = drawn(render(config))
    bounded = [name for name, figure in figures.items() if "untrained" in json.dumps(figure)]
    assert bounded == ["limits-tiny, last", "limits-tiny, later", "limits-tiny, early"], "an untrained network is one"
    del config["samplings"]["few"]
    config["grid"]["samplings"] = list(config["samplings"])
    write_json(Path("results/digits/v/tiny/ceiling.json"), ceiling | {"sampler": "few"})
    assert "untrained" not in json.dumps(drawn(render(config))), "nobody knows any more how it was sampled"
    assert [each["name"] for each in samples.courses(config, table_of(config))] == ["tiny", "small"]


def test_a_stop_is_the_end_only_where_every_variant_ends_there(config):
    config["training"] |= {"steps": 1000, "snapshots": [200]}
    config["parameterizations"]["long"] = {"target": "v", "training": {"steps": 2000, "snapshots": [200, 1000]}}
    config["sampling"]["snapshot"] = 200
    config["samplings"] = {"later": {"snapshot": 1000}, "as_all": {}}
    config["grid"] |= {"scales": ["tiny"], "seeds": [0], "samplings": ["later", "as_all"]}
    for variants, later in ((["v", "long"], 1000), (["long"], 1000), (["v"], None)):
        config["grid"]["parameterizations"] = variants
        (course,) = samples.courses(config, table_of(config))
        assert course["stops"] == [("tiny, as_all", 200), ("tiny, later", later)]


def test_the_check_is_reported(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41]})
    make_check(config, "epsilon")
    text = Page(render(config)).text
    assert "epsilon epsilon epsilon constant 4.2 × 10⁻¹⁴ 1 157.4 at t = 999 t = 674 to 999" in text
    assert "Not checked yet: v." in text
    assert "one objective" not in text


def test_gains_that_are_the_same_share_a_line(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41], "x0": [50, 51]})
    for name, gain in {"epsilon": 1.0, "v": 1.005, "x0": 1.02}.items():
        make_check(config, name, curve={"t": [0, 500], "gain_to_x0": [0.1, gain]})
    rows = drawn(render(config))["check-gain from output to x0"]["data"]["values"]
    assert [row["parameterization"] for row in rows] == [*["epsilon and v"] * 2, *["x0"] * 2]


def test_variants_of_one_objective_are_told(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41], "x0": [50, 51]})
    same = {"log_snr": [9.0, 0.0, -9.0], "effective_weight": [0.1, 0.05, 0.003]}
    make_check(config, "epsilon", objective=same)
    make_check(config, "v", objective={**same, "effective_weight": [0.003, 0.05, 0.1]})
    make_check(config, "x0", objective=same)
    html = render(config)
    assert "epsilon, x0: one objective, because at every noise level an error in x0 weighs as much" in Page(html).text
    weights = drawn(html)["check-effective weight"]["data"]["values"]
    assert [row["parameterization"] for row in weights] == [*["epsilon and x0"] * 3, *["v"] * 3]


def test_a_check_of_before_the_effective_weight_leaves_its_figure_out(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41]})
    make_check(config, "epsilon")
    assert "check-effective weight" in drawn(render(config))
    make_check(config, "epsilon", objective=None)
    assert "check-effective weight" not in drawn(render(config))


def test_origins_are_told(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40, 41]})
    text = Page(render(config)).text
    assert f"commit {'c' * 40} , with uncommitted changes (12 jobs)" in text
    assert "node1, CPU, 2 cores, Linux x86_64 (12 jobs)" in text
    assert "train 2 min 0 s (4 jobs); sample 2 min 0 s (4 jobs); measure 8 s (4 jobs)" in text
    assert "first cell done 2023-11-14 22:13 UTC" in text
    assert "extractor odd (native)" in text and "e" * 64 in text


def test_versions_that_differ_stand_out(config):
    make_grid(config, {"epsilon": [60], "v": [40]})
    path = Path("results/digits/v/tiny/seed0/training.json")
    path.write_text(path.read_text().replace('"torch": "2.0"', '"torch": "2.1"'))
    assert '<strong class="bad-text">2.0 and 2.1</strong>' in render(config)


def test_the_page_loads_nothing_and_is_well_formed(config):
    make_grid(config, APART | {"x0": [50, 51]})
    make_cell(config, "x0", 2, None, reason="the loss was not finite at step 37")
    for name in APART:
        make_check(config, name)
    html = render(config)
    page = Page(html)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.loads and all(source.startswith("data:image/png;base64,") for source in page.loads)
    assert len(page.ids) == len(set(page.ids))
    assert "table.csv" in page.links and "v/tiny/seed0/manifest.json" in page.links
    assert not any("://" in link or link.startswith("/") for link in page.links)
    assert not re.search(r"\b(nan|None|inf|built-in)\b", page.text)
    figures = ["intervals-tiny", "explore", "values-tiny", *(f"loss-tiny-{name}" for name in APART), "clipped-tiny"]
    assert [name for name in drawn(html) if not name.startswith("check-")] == figures
    assert html.count('role="img" aria-label="') == len(drawn(html))
    assert page.tags.count("figcaption") == page.tags.count("figure") == 6


def test_the_same_files_give_the_same_page(config):
    make_grid(config, APART)
    for name in APART:
        make_check(config, name)
    assert render(config) == render(config)


def test_odd_text_is_escaped(config):
    make_grid(config, {"epsilon": [60, 61], "v": [40]}, marks=["<b>few & odd</b>"])
    make_cell(config, "v", 1, None, reason="<script>alert('x')</script>")
    html = render(config)
    assert "<script>" not in html and "<b>" not in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html
    assert "&lt;b&gt;few &amp; odd&lt;/b&gt;" in html


def test_no_name_ends_the_script_that_it_stands_in(config):
    """Within a script element nothing is escaped as HTML is."""
    make_grid(config, APART)
    path = Path("results/digits/v/tiny/seed0/fid/ddim-50/draw0.json")
    write_json(path, {**read_json(path), "metric": "</script><b>FD</b>"})
    for name in ("epsilon", "v", "x0"):
        for seed in range(3):
            each = Path(f"results/digits/{name}/tiny/seed{seed}/fid/ddim-50/draw0.json")
            write_json(each, {**read_json(each), "metric": "</script><b>FD</b>"})
    html = render(config)
    assert "</script><b>" not in html
    assert drawn(html)["values-tiny"]["encoding"]["x"]["title"] == "</script><b>FD</b>, lower is better"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1853.08, "1,853"), (157.41, "157.4"), (44.7304, "44.73"), (-2.5, "−2.50"), (0.00213, "0.0021"), (0.0, "0.00")],
)
def test_numbers_are_written_for_reading(value, text):
    assert number(value) == text


def test_what_is_not_known_is_a_dash():
    assert number(None) == number(float("nan")) == "–"


def test_durations_and_errors_are_written_for_reading():
    assert [duration(seconds) for seconds in (41.2, 903, 26_400)] == ["41 s", "15 min 3 s", "7 h 20 min"]
    assert [tiny(error) for error in (0, 0.0234, 4.218e-14)] == ["0", "0.023", "4.2 × 10⁻¹⁴"]


def test_the_published_numbers_stand_beside_a_study_of_the_same_measure_only(config, project):
    assert "published" not in Page(render(config)).text
    study = configuration.load([Path("config/reference.yaml")])
    study["grid"]["scales"] = ["small"]
    make_cell(study, "epsilon", 42, 18.75, scale="small")
    html = render(study)
    text, (listed, there) = Page(html).text, parts(html)
    assert listed == there and {"published", "papers"} & set(there)
    assert "epsilon this study 18.75 1 seed" in text
    assert "epsilon published, baseline 18.58" in text
    assert "follows that task’s protocol in every option" in text
    study["sampling"]["quantization"] = "round"
    assert "sampling.quantization round truncate" in Page(render(study)).text


def test_the_budget_of_each_variant_is_told_where_they_differ(config):
    """Not the base configuration's, which none of them may have."""
    config["parameterizations"] |= {"long": {"target": "v", "training": {"steps": 5000}}}
    config["grid"]["parameterizations"] = ["v", "long"]
    text = Page(render(config)).text
    assert "The budget of every cell: 2,500 (v) and 5,000 (long) steps of 256 images" in text
    config["grid"]["parameterizations"] = ["long"]
    config["samplings"] = {"few": {"steps": 10, "sampler": "dpmpp_2m"}, "many": {"draws": 2}}
    config["grid"]["samplings"] = ["few", "many"]
    text = " ".join(Page(render(config)).text.split())
    assert "The budget of every cell: 5,000 steps of 256 images" in text
    assert (
        "DPMPP_2M with 10 steps, 1 draw of 40 images (few) and DDIM with 50 steps, 2 draws of 40 images (many)"
        in text
    )
    config["parameterizations"]["long"]["training"]["snapshots"] = [200, 3000]
    config["samplings"] = {"early": {"snapshot": 200}, "later": {"snapshot": 3000}, "end": {"snapshot": 5000}}
    config["grid"]["samplings"] = list(config["samplings"])
    text = " ".join(Page(render(config)).text.split())
    assert "1 draw of 40 images, after 200, 3,000 and 5,000 of these steps;" in text
    config["grid"]["parameterizations"] = ["long", "v"]
    assert "Samplings of one scale draw from the same trained networks" in Page(render(config)).text


def test_what_a_variant_is_stands_beside_its_mean_unless_names_say_it(config):
    make_grid(config, APART)
    assert "what it is" not in render(config)
    config["parameterizations"] |= {
        "x0_in_v": {"target": "x0", "loss_space": "v"},
        "slow": {"target": "v", "training": {"learning_rate": 1e-5}},
    }
    make_grid(config, {"x0_in_v": [50, 51, 52], "slow": [60, 61, 62]})
    config["grid"]["parameterizations"] = ["v", "x0_in_v", "slow"]
    table, rate = Page(render(config)).text, config["training"]["learning_rate"]
    assert f" v predicts v, training.learning_rate {rate} 41.00" in table
    assert f" x0_in_v predicts x0, loss in v, training.learning_rate {rate} 51.00" in table
    assert " slow predicts v, training.learning_rate 1e-05 61.00" in table


def test_pictures_of_another_configuration_are_not_shown(config):
    make_grid(config, APART)
    assert "no samples" not in render(config)
    config["sampling"]["clip"] = False
    assert render(config).count("no samples") == 3


def test_what_variants_set_stands_beside_their_checks(config):
    """A path or a learning rate is part of what a variant is; what all share, or only scales differ in, is not."""
    config["parameterizations"] |= {
        "slow": {"target": "v", "training": {"learning_rate": 1e-5}},
        "cosine": {"target": "v", "schedule": "cosine"},
    }
    config["grid"] |= {"parameterizations": ["v", "slow", "cosine"], "scales": ["tiny", "large"]}
    for name in config["grid"]["parameterizations"]:
        make_check(config, name)
    text = Page(render(config)).text
    assert "weighting diffusion.schedule training.learning_rate round trip" in text
    rate = config["training"]["learning_rate"]
    assert re.search(rf"slow slow slow constant {config['diffusion']['schedule']} 1e-05 ", text)
    assert re.search(rf"cosine cosine cosine constant cosine {rate} ", text)
