"""Claims: what a file may say, the cells that it brings, and verdicts that are false no more often than promised."""

import copy
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import EXAMPLE, ROOT, stack
from scipy import stats
from synthetic import Files, write_json

from targetwise import cells, cli
from targetwise.errors import UserError
from targetwise.files import read_json, read_json_lines
from targetwise.inference import claims as judging
from targetwise.inference.claims import CONTRADICTED, OPEN, SUPPORTED, Region
from targetwise.recipe import claims, config
from targetwise.report import claims as reported
from targetwise.report import declarations, page, quantities
from targetwise.report.table import table

LESS, GREATER, WITHIN = ({word: value} for word, value in {"less": 0.9, "greater": 1.1, "within": 1.1}.items())


def judged(x, bound, denied=None):
    predicted = Region.of(bound, logarithm=True)
    return judging.of_mean(x, predicted, [Region.of(denied, logarithm=True)] if denied else predicted.outside)


def settled(*findings):
    return [verdict for verdict, _ in judging.settle(findings)]


def test_the_interval_and_the_p_value_are_students():
    x = [-0.30, -0.22, -0.41, -0.18, -0.25]
    found = judged(x, LESS)
    expected = stats.ttest_1samp(x, math.log(0.9))
    low, high = expected.confidence_interval(0.95)
    assert [found.estimate, found.low, found.high] == pytest.approx([np.mean(x), low, high])
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.seeds, found.leaning) == (5, SUPPORTED)


@pytest.mark.parametrize(
    ("bound", "mean", "verdict"),
    [
        (LESS, -0.20, SUPPORTED),
        (LESS, -0.02, CONTRADICTED),
        (LESS, -0.11, OPEN),
        (GREATER, 0.20, SUPPORTED),
        (GREATER, 0.02, CONTRADICTED),
        (GREATER, -0.20, CONTRADICTED),
        (WITHIN, 0.02, SUPPORTED),
        (WITHIN, -0.02, SUPPORTED),
        (WITHIN, 0.20, CONTRADICTED),
        (WITHIN, -0.20, CONTRADICTED),
        (WITHIN, 0.09, OPEN),
    ],
)
def test_a_verdict_needs_the_whole_interval(bound, mean, verdict):
    x = mean + 0.02 * np.array([-1, -0.5, 0, 0.5, 1])
    finding = judged(x, bound)
    assert settled(finding) == [verdict]
    edges = [edge for edge in Region.of(bound, logarithm=True).__dict__.values() if math.isfinite(edge)]
    assert (verdict == OPEN) == any(finding.low < edge < finding.high for edge in edges)


def test_what_is_neither_predicted_nor_denied_stays_open():
    x = np.log(1.06) + 0.001 * np.array([-1, 0, 1])
    assert settled(judged(x, GREATER, {"less": 1.02})) == [OPEN]
    assert settled(judged(x - np.log(1.06), GREATER, {"less": 1.02})) == [CONTRADICTED]
    assert settled(judged(x + np.log(1.06), GREATER, {"less": 1.02})) == [SUPPORTED]


def test_numbers_without_scatter_are_certain_and_one_number_says_nothing():
    assert settled(judged([math.log(1.2)] * 3, GREATER)) == [SUPPORTED]
    assert settled(judged([math.log(1.1)] * 3, GREATER)) == [OPEN]
    one, none = judged([0.5], GREATER), judged([], GREATER)
    assert settled(one, none) == [OPEN, OPEN] and math.isnan(one.low) and one.estimate == 0.5


def test_one_claim_among_many_needs_more():
    doubtful = judged(-0.20 + 0.06 * np.array([-1, -0.5, 0, 0.5, 1]), LESS)
    assert 0.005 < doubtful.p_value < 0.05 and settled(doubtful) == [SUPPORTED]
    nothing = judged(math.log(0.9) + 0.1 * np.array([-1, -0.5, 0, 0.5, 1]), LESS)
    assert settled(doubtful, *[nothing] * 9)[0] == OPEN
    unknown = judged([1.0], LESS)
    assert settled(doubtful, *[unknown] * 9)[0] == SUPPORTED, "what is not measured is no test"


def test_a_deviation_is_held_against_the_quantiles_of_chi_squared():
    x = [0.013, -0.008, 0.004, -0.011, 0.009, -0.002, 0.006, -0.013, 0.001, 0.005]
    finding = judging.of_deviation(x, Region.of({"less": 0.02}), Region.of({"less": 0.02}).outside)
    # Printed quantiles of chi-squared with 9 degrees of freedom: 2.700 and 19.023.
    s = np.std(x, ddof=1)
    assert [finding.low, finding.high] == pytest.approx(
        [s * math.sqrt(9 / 19.023), s * math.sqrt(9 / 2.700)], rel=1e-4
    )
    assert settled(finding) == [SUPPORTED]
    larger = judging.of_deviation([10 * each for each in x], Region.of({"less": 0.02}), [Region(0.02, math.inf)])
    assert settled(larger) == [CONTRADICTED]


def test_how_often_something_happens_is_fishers_test():
    # Fisher's tea: 3 of 4 against 1 of 4 has the printed one-sided p-value 17/70.
    finding = judging.of_shares([1, 1, 1, 0], [1, 0, 0, 0], Region.of({"greater": 0}))
    assert finding.p_value == pytest.approx(2 * 17 / 70) and finding.estimate == 0.5
    all_of_five = judging.of_shares([1] * 5, [0] * 5, Region.of({"greater": 0}))
    assert all_of_five.p_value == pytest.approx(2 / 252) and settled(all_of_five) == [SUPPORTED]
    assert settled(judging.of_shares([0] * 5, [1] * 5, Region.of({"greater": 0}))) == [CONTRADICTED]
    assert settled(judging.of_shares([1], [], Region.of({"greater": 0}))) == [OPEN]


@pytest.fixture
def quick(monkeypatch):
    """Settle thousands of studies: statsmodels' Holm collects garbage each time, which takes longer than all else."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def false_share(truth, bounds, seeds, studies, scatter):
    """Return in which share of simulated studies any verdict is one that the truth denies."""
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(studies):
        shared = 0.05 * scatter(random, (1, seeds))  # claims that share a side err together
        x = truth[:, None] + 0.05 * scatter(random, (len(bounds), seeds)) + shared
        found = judging.settle([judged(row, bound) for row, bound in zip(x, bounds, strict=True)])
        for (verdict, _), bound, mean in zip(found, bounds, truth, strict=True):
            region = Region.of(bound, logarithm=True)
            wrong_here = CONTRADICTED if region.low <= mean <= region.high else SUPPORTED
            if verdict == wrong_here or (mean in (region.low, region.high) and verdict != OPEN):
                wrong += 1
                break
    return wrong / studies


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("case", ["all variants are equal", "every truth is a bound"])
def test_a_study_of_twenty_claims_gives_a_false_verdict_no_more_often_than_promised(quick, case, seeds):
    bounds = [LESS, GREATER, WITHIN, LESS] * 5
    edge = [math.log(next(iter(bound.values()))) for bound in bounds]
    truth = np.zeros(20) if case == "all variants are equal" else np.array(edge)
    studies = 400
    share = false_share(truth, bounds, seeds, studies, np.random.Generator.standard_normal)
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_one_claim_at_its_bound_gets_a_false_verdict_in_five_of_a_hundred_studies(quick):
    studies = 3000
    share = false_share(np.array([math.log(0.9)]), [LESS], 5, studies, np.random.Generator.standard_normal)
    assert share == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / studies))


@pytest.fixture
def own(project):
    """A project whose folder of claims may be written to; returns what writes a claim."""
    (project / "workflow").unlink()
    (project / "workflow").mkdir()
    for path in (ROOT / "workflow").iterdir():
        if path.name != "claims":
            (project / "workflow" / path.name).symlink_to(path)
    (project / "workflow/claims").mkdir()

    def write(name, **changes):
        content = {
            "says": "x0 is worse",
            "source": {"text": "somebody"},
            "left": {"target": "x0"},
            "right": {"target": "epsilon"},
            "predicts": {"greater": 1.1},
            **changes,
        }
        content = {key: value for key, value in content.items() if value is not None}
        claims.file_of(name).write_text(yaml.safe_dump(content, sort_keys=False))

    return write


def planned(*names, **grid):
    study = copy.deepcopy(EXAMPLE)
    study["grid"] |= {"parameterizations": ["epsilon"], "claims": list(names), **grid}
    return config.validate(study)


def test_its_cells_join_the_grid_once_and_are_shared(own):
    own("one", left={"target": "x0", "weighting": "truncated_snr"})
    own("two", left={"target": "x0", "training.learning_rate": 0.004}, right={"target": "x0", "weighting": "snr"})
    own("three", right={"target": "x0", "loss_space": "x0", "weighting": "truncated_snr"})
    study = planned("one", "two", "three")
    names = study["grid"]["parameterizations"]
    # x0_snr is what config.yaml calls it; the third claim's right side is the first one's left, written out.
    assert names == ["epsilon", "x0_truncated_snr", "x0_0p004", "x0_snr", "x0"]
    assert [claim.variants for claim in claims.of(study)] == [
        ["x0_truncated_snr", "epsilon"],
        ["x0_0p004", "x0_snr"],
        ["x0", "x0_truncated_snr"],
    ]
    assert config.validate(study) == study, "validated again it is what it was"
    assert {cell.parameterization for cell in cells.grid(study)} == set(names)


def test_a_side_that_is_what_the_study_has_by_default_is_no_cell_of_its_own(own):
    rate = EXAMPLE["training"]["learning_rate"]
    own("best", left={"target": "x0", "each": {"training.learning_rate": [rate / 2, rate, 2 * rate]}})
    study = planned("best")
    assert study["grid"]["parameterizations"] == ["epsilon", "x0_0p001", "x0", "x0_0p004"]
    own("named", left="v", right="x0_in_v")
    assert planned("named")["grid"]["parameterizations"] == ["epsilon", "v", "x0_in_v"]


TERM = {"of": {"target": "x0"}, "times": 1}
SHARES = {"quantity": "diverged", "predicts": {"greater": 0}}

#: What a share is of.
DEFICIT = {"left": {"target": "v"}, "right": {"target": "epsilon"}, "predicts": {"greater": 1.1}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predicts": {"less": 0.9, "greater": 2}}, "predicts"),
        ({"predicts": {"below": 0.9}}, "unknown key 'below' in predicts; (choices: greater, less, within)"),
        ({"predicts": {"less": -1}}, "predicts.less is -1; it must be above 0, as a ratio"),
        ({"predicts": {"within": 0.9}}, "predicts.within is 0.9; it must be above 1, as a factor"),
        ({"unit": "difference", "predicts": {"within": -1}}, "must be above 0, as a distance from 0"),
        ({"predicts": None}, "predicts is missing"),
        ({"source": {}}, "source"),
        ({"left": {"weighting": "snr"}}, "a side must say its target"),
        ({"left": {"target": "x1"}}, "there is no workflow/parameterizations/x1.py"),
        ({"left": "x1"}, "is about 'x1'"),
        ({"left": {"target": "x0", "wieghting": "snr"}}, "unknown key 'wieghting'"),
        ({"left": {"target": "x0", "weighting": "srn"}}, "there is no workflow/weightings/srn.py"),
        ({"left": None}, "either left, and right if there is one, or contrast"),
        ({"quantity": "frechte"}, "quantity is 'frechte', which this study does not measure"),
        ({"at": {"scale": ["huge"]}}, "at.scale names 'huge', which is not in the study's grid.scales"),
        ({"change": {"sampling": ["few", "many"]}}, "change.sampling names 'few'"),
        ({"denied": {"less": 1.2}}, "what supports a claim must not contradict it"),
        ({"predicts": {"less": 0.85}, "denied": {"greater": 0.8}}, "what supports a claim must not contradict it"),
        ({"statistic": "deviation", "predicts": {"within": 2}}, "a deviation can be less or greater"),
        ({"quantity": "diverged"}, "quantity diverged is compared by how often it happens"),
        ({"more": 1}, "unknown key 'more'"),
        ({"provided": {**DEFICIT, "left": {"target": "x1"}}}, "there is no workflow/parameterizations/x1.py"),
        ({"provided": {**DEFICIT, "predicts": {"less": -1}}}, "predicts.less is -1; it must be above 0, as a ratio"),
        ({"provided": DEFICIT, "statistic": "deviation"}, "provided is about a mean"),
        ({"provided": {"left": {"target": "v"}}}, "provided.right is missing"),
        ({"right": {"target": "x0", "loss_space": "x0"}}, "two sides are the same cells of this study, x0"),
        ({"quantity": "final_loss", "change": {"sampling": ["a", "b"]}}, "change.sampling names 'a'"),
        (
            {"unit": "difference", "statistic": "deviation", "predicts": {"less": -1}},
            "it must be above 0, as a deviation",
        ),
        ({"left": None, "right": None, "contrast": [TERM, {**TERM, "times": -0.5}]}, "must add up to 0"),
        ({"left": None, "right": None, "contrast": [{**TERM, "times": 0}] * 2}, "must add up to 0"),
        ({"left": {"target": "x0", "each": 3}}, "each must have a list of values for a field"),
        ({"left": {"target": "x0", "each": {"training.learning_rate": 1}}}, "each must have a list of values"),
        ({"left": {"target": ["x0"]}}, "workflow/claims/bad.yaml: a side.target is ['x0']"),
        ({"left": {"target": "x0", "each": {"training.learning_rate": [1, 2]}}, "quantity": "final_loss"}, "lowest"),
        ({**SHARES, "change": {"scale": ["tiny", "small"]}}, "and no change"),
        ({**SHARES, "statistic": "deviation"}, "and no statistic"),
    ],
)
def test_bad_input_is_one_line_that_names_the_file(own, changes, words):
    own("bad", **changes)
    with pytest.raises(UserError) as error:
        planned("bad")
    text = str(error.value)
    assert words in text and "\n" not in text
    assert "workflow/claims/bad.yaml" in text or "bad" in text


def test_bounds_that_stand_apart_are_taken(own):
    own("faster", predicts={"less": 0.85}, denied={"greater": 1})
    own("larger", predicts={"greater": 1.1}, denied={"less": 1.1})
    assert len(claims.of(planned("faster", "larger"))) == 2


def test_an_unknown_claim_is_refused_with_the_nearest_name(own):
    own("ranking")
    with pytest.raises(UserError, match=r"grid.claims names 'rankin', but there is no .*did you mean 'ranking'"):
        planned("rankin")


class Measured(Files):
    """Cells whose first metric is what it is told, by variant and seed."""

    def tell(self, values, sampling=None):
        for cell in self.cells:
            value = values[cell.parameterization][self.config["grid"]["seeds"].index(cell.seed)]
            if value is None:
                continue
            if not (cell.folder / "training.json").exists():
                self.finish(cell, [100, 200, 300, 400])
            for path in (cell.folder / "fid").glob(f"{sampling or '*'}/draw*.json"):
                row = read_json(path)
                write_json(path, {**row, "value": value, "values": {**row["values"], "frechet": value}})
        return self

    def judged(self):
        return reported.table(self.config, table(self.config))


@pytest.mark.parametrize(
    ("deficit", "verdict", "told"),
    [
        ([1.5, 1.6, 1.4], SUPPORTED, ""),
        ([1.05, 1.0, 0.95], OPEN, "v / epsilon is not shown to be above 1.1"),
        ([0.6, 0.7, 0.5], OPEN, "v / epsilon is not shown to be above 1.1"),
        ([3.0, 0.9, 1.0], OPEN, "v / epsilon is not shown to be above 1.1"),
    ],
)
def test_a_claim_whose_premise_does_not_hold_stays_open_and_counts_all_the_same(own, deficit, verdict, told):
    own("share", predicts={"less": 0.9}, provided=DEFICIT)
    own("other", right={"target": "v"}, predicts={"less": 0.9})
    study = Measured(planned("share", "other"))
    assert set(study.config["grid"]["parameterizations"]) == {"epsilon", "v", "x0"}
    values = {"epsilon": [10.0] * 3, "x0": [5.0, 5.1, 4.9], "v": [10 * each for each in deficit]}
    share, other = study.tell(values).judged().to_dict("records")
    assert (share["verdict"], share["lacking"]) == (verdict, told)
    assert (share["left"], share["right"], share["predicts"]) == ("x0", "epsilon", "below 0.9")
    # Holm of two, whatever became of the premise.
    both = sorted([share["p_value"], other["p_value"]])
    assert share["p_holm"] == pytest.approx(
        min(1, 2 * both[0]) if share["p_value"] == both[0] else max(both[1], 2 * both[0])
    )


def test_the_table_has_the_ratio_its_interval_and_what_is_lacking(own):
    own("worse")
    own(
        "equal",
        predicts={"within": 1.1},
        source={"paper": "P", "place": "table 1", "published": "1.0", "unverified": True},
    )
    ratios = np.array([1.30, 1.40, 1.25, 1.35, 1.45])
    study = Measured(planned("worse", "equal", seeds=[0, 1, 2, 3, 4]))
    first, second = study.tell({"epsilon": [10.0] * 5, "x0": [*(10 * ratios[:4]), None]}).judged().to_dict("records")
    low, high = np.exp(stats.ttest_1samp(np.log(ratios[:4]), 0).confidence_interval(0.95))
    assert [first[name] for name in ("estimate", "low", "high")] == pytest.approx(
        [stats.gmean(ratios[:4]), low, high]
    )
    assert (first["verdict"], second["verdict"]) == (SUPPORTED, CONTRADICTED)
    assert first["seeds"] == 4 and first["lacking"] == "1 cell missing"
    assert (first["predicts"], second["predicts"]) == ("above 1.1", "within a factor of 1.1")
    assert (second["source"], second["published"]) == ("P, table 1 (unverified)", "1.0")
    # Holm of two: the smaller p-value twice, the other as it is unless that is smaller.
    p = sorted([first["p_value"], second["p_value"]])
    assert sorted([first["p_holm"], second["p_holm"]]) == pytest.approx([2 * p[0], max(2 * p[0], p[1])])


def test_a_ratio_between_what_is_predicted_and_denied_is_open(own):
    own("more", denied={"less": 1.02})
    study = Measured(planned("more")).tell({"epsilon": [2.0] * 3, "x0": [2.0999, 2.1, 2.1001]})
    assert study.judged().iloc[0]["verdict"] == OPEN


def test_a_contrast_weighs_logarithms(own):
    half = [("x0", 0.5), ({"target": "x0", "weighting": "snr"}, -1), ("epsilon", 0.5)]
    own("half", left=None, right=None, predicts={"greater": 1}, contrast=[{"of": of, "times": t} for of, t in half])
    study = Measured(planned("half"))
    found = (
        study.tell({"epsilon": [4.0, 4.1, 4.2], "x0": [9.0, 9.1, 9.2], "x0_snr": [5.0, 5.2, 5.3]}).judged().iloc[0]
    )
    expected = stats.gmean([6 / 5, math.sqrt(4.1 * 9.1) / 5.2, math.sqrt(4.2 * 9.2) / 5.3])
    assert found["estimate"] == pytest.approx(expected) and found["left"] == "+0.5 x0 -1 x0_snr +0.5 epsilon"


def test_of_a_sweep_each_seed_counts_where_the_others_say_it_is_best(own):
    rate = EXAMPLE["training"]["learning_rate"]
    own("best", left={"target": "x0", "each": {"training.learning_rate": [rate, 2 * rate]}}, predicts={"within": 1.1})
    study = Measured(planned("best"))
    # By the seeds 1 and 2 the second is better, by 0 and 2, and by 0 and 1, the first.
    study.tell({"epsilon": [1.0] * 3, "x0": [1.0, 4.0, 3.0], "x0_0p004": [8.0, 2.0, 2.0]})
    assert study.judged().iloc[0]["estimate"] == pytest.approx(stats.gmean([8.0, 4.0, 3.0]))


def test_a_change_is_judged_between_two_samplings_of_the_same_cells(own):
    own("gains", change={"sampling": ["many", "few"]}, left="v", predicts={"less": 0.9})
    study = copy.deepcopy(EXAMPLE)
    study["samplings"] = {"many": {"steps": 50}, "few": {"steps": 5}}
    study["grid"] |= {"parameterizations": ["epsilon", "v"], "samplings": ["many", "few"], "claims": ["gains"]}
    files = Measured(config.validate(study))
    files.tell({"epsilon": [1.0, 1.1, 1.2], "v": [1.2, 1.3, 1.4]}, "many")
    files.tell({"epsilon": [3.0, 3.3, 3.6], "v": [1.8, 2.0, 2.1]}, "few")
    found = files.judged().iloc[0]
    expected = stats.gmean(np.array([1.8 / 3, 2 / 3.3, 2.1 / 3.6]) / np.array([1.2, 1.3 / 1.1, 1.4 / 1.2]))
    assert found["estimate"] == pytest.approx(expected) and found["verdict"] == SUPPORTED
    assert found["setting"] == "tiny, many → few"


def test_numbers_of_a_training_are_there_too(own):
    own("memory", quantity="memory_peak_bytes", denied={"less": 1.02})
    own("speed", quantity="images_per_second", predicts={"within": 1.05})
    own("clipped", quantity="clipped_share", unit="difference", predicts={"less": 0})
    own("spikes", quantity="loss_spikes", unit="difference", predicts={"less": 0})
    own("diverges", quantity="diverged", predicts={"greater": 0})
    own("scatter", right=None, left="epsilon", statistic="deviation", predicts={"less": 0.02})
    study = Measured(planned("memory", "speed", "clipped", "spikes", "diverges", "scatter"))
    study.tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    for cell in study.cells:
        path = cell.folder / "train.jsonl"
        lines = [{**line, "loss": 1.0 + 0.01 * number} for number, line in enumerate(read_json_lines(path))]
        if cell.parameterization == "x0":
            lines[-1] |= {"loss": 9.0, "memory_peak_bytes": 3 << 30}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = study.judged().set_index("claim")
    assert found.loc["memory", "estimate"] == pytest.approx(3) and found.loc["memory", "verdict"] == SUPPORTED
    assert found.loc["speed", "estimate"] == 1 and found.loc["speed", "verdict"] == SUPPORTED
    assert found.loc["clipped", "estimate"] == 0 and found.loc["clipped", "verdict"] == OPEN
    # Of four lines the first is left out; one of the other three is a spike.
    assert found.loc["spikes", "estimate"] == pytest.approx(1 / 3) and found.loc["spikes", "verdict"] == CONTRADICTED
    assert found.loc["diverges", "estimate"] == 0
    assert found.loc["scatter", "estimate"] == pytest.approx(np.std(np.log([2.0, 2.1, 2.2]), ddof=1))
    p = 2 * stats.chi2.sf(2 * np.var(np.log([2.0, 2.1, 2.2]), ddof=1) / 0.02**2, 2)
    assert found.loc["scatter", "p_value"] == pytest.approx(p)


def test_how_often_cells_diverge_is_counted(own):
    own("diverges", quantity="diverged", predicts={"greater": 0})
    study = Measured(planned("diverges")).tell({"epsilon": [2.0, 2.1, 2.2], "x0": [None] * 3})
    for cell in study.cells:
        if cell.parameterization == "x0":
            study.publish(cell, [100], diverged="the loss is not finite")
            study.measure(cell, reason="the loss is not finite")
    found = study.judged().iloc[0]
    assert found["estimate"] == 1 and found["unit"] == "difference"
    assert found["p_value"] == pytest.approx(2 / 20), "of 20 ways to choose three of six"


def test_what_has_no_ratio_stays_open_and_says_why_and_the_others_are_judged(own):
    own("clipped", quantity="clipped_share")
    own("worse")
    study = Measured(planned("clipped", "worse"))
    study.tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    for cell in study.cells:
        outcome = read_json(cell.folder / "training.json")
        write_json(cell.folder / "training.json", {**outcome, "clipped_share": 0.0})
    clipped, worse = study.judged().to_dict("records")
    assert clipped["verdict"] == OPEN and worse["verdict"] == SUPPORTED
    assert clipped["lacking"] == "clipped_share of x0 is not above 0 everywhere, so it has no ratio"
    assert worse["p_holm"] == worse["p_value"], "what has no number does not count"


def test_survivors_of_a_variant_that_diverged_settle_nothing(own):
    own("better", predicts={"less": 0.9})
    study = Measured(planned("better", seeds=[0, 1, 2, 3]))
    study.tell({"epsilon": [2.0, 2.1, 2.2, 2.0], "x0": [1.0, 1.1, 1.0, None]})
    (cell,) = [each for each in study.cells if (each.parameterization, each.seed) == ("x0", 3)]
    study.publish(cell, [100], diverged="the loss is not finite")
    study.measure(cell, reason="the loss is not finite")
    found = study.judged().iloc[0]
    assert found["seeds"] == 3 and found["high"] < 0.9 and found["verdict"] == OPEN
    assert found["lacking"].startswith("1 cell diverged; what diverged has no number")


def test_a_rate_that_diverges_with_one_seed_is_not_the_best_with_the_others(own):
    rates = [1.0e-3, 2.0e-3]
    own("best", left={"target": "x0", "each": {"training.learning_rate": rates}}, predicts={"less": 0.9})
    study = Measured(planned("best"))
    low, high = study.config["grid"]["parameterizations"][1:]
    values = {"epsilon": [10.0] * 3, low: [4.0, 4.0, 4.0], high: [1.0, 1.0, None]}
    study.tell(values)
    (cell,) = [each for each in study.cells if (each.parameterization, each.seed) == (high, 2)]
    study.publish(cell, [100], diverged="the loss is not finite")
    study.measure(cell, reason="the loss is not finite")
    found = study.judged().iloc[0]
    # Seeds 0 and 1 see seed 2 diverge and take the low rate; seed 2 is chosen by them, who like the high one.
    assert found["verdict"] == OPEN and "what diverged has no number" in found["lacking"]
    assert (found["seeds"], found["estimate"]) == (2, pytest.approx(0.4))


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_choosing_the_best_by_the_other_seeds_does_not_widen_the_error(seeds):
    """Two sweeps of five rates that are the same in truth: Student's t alone is wrong twice as often as it says."""
    random, repetitions = np.random.default_rng(seeds), 3000
    wrong = Counter()
    for _ in range(repetitions):
        chosen = []
        for values in random.standard_normal((2, seeds, 5)):
            others = (values.sum(axis=0) - values) / (seeds - 1)
            chosen.append(values[np.arange(seeds), others.argmin(axis=1)])
        x = chosen[0] - chosen[1]
        for kind in (True, False):
            found = judging.of_mean(x, Region(-math.inf, 0), [Region(0, math.inf)], chosen=kind)
            wrong[kind] += not found.low <= 0 <= found.high
    sure = 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert wrong[True] / repetitions <= 0.05 + sure
    assert wrong[False] / repetitions > 0.05 + sure, "or nothing had to be done"


def test_only_what_was_chosen_has_the_wider_interval(own):
    own("plain", predicts={"less": 0.9})
    own("best", left={"target": "x0", "each": {"training.learning_rate": [2.0e-3, 4.0e-3]}}, predicts={"less": 0.9})
    study = Measured(planned("plain", "best"))
    other = study.config["grid"]["parameterizations"][-1]
    x0 = [5.0, 5.5, 4.5]
    plain, best = study.tell({"epsilon": [10.0] * 3, "x0": x0, other: [9.0] * 3}).judged().to_dict("records")
    assert plain["estimate"] == pytest.approx(best["estimate"])
    half = [math.log(each["high"] / each["estimate"]) for each in (plain, best)]
    assert half[1] / half[0] == pytest.approx(math.sqrt((1 / 3 + 1 / 2) / (1 / 3)))


@pytest.mark.parametrize(("losses", "share"), [([None] * 4, 1), ([1.0, None, None], 2 / 3), ([None, 1, 1, 1], 0)])
def test_a_loss_that_is_not_finite_is_a_spike(losses, share):
    """After the first quarter."""
    assert quantities.loss_spikes([{"loss": loss} for loss in losses]) == share


def test_it_is_written_down_before_its_values_are_there_and_an_edit_afterwards_is_marked(own):
    own("worse")
    own("later", left={"target": "v"})
    files = Measured(planned("worse"))
    declarations.record(files.config)
    declarations.record(files.config)
    (entry,) = declarations.read(cells.RESULTS / "digits")
    assert (entry["claim"], entry["values"], entry["content"]["predicts"]) == ("worse", 0, {"greater": 1.1})
    files.tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    assert files.judged().iloc[0][["marks", "declared"]].to_list() == ["", entry["date"]]
    text = claims.file_of("worse").read_text()
    claims.file_of("worse").write_text("# a comment\n" + text)
    assert files.judged().iloc[0]["marks"] == "", "a comment predicts nothing"
    claims.file_of("worse").write_text(text.replace("1.1", "1.2"))
    assert files.judged().iloc[0]["marks"] == "not declared by a run as it is now"
    files.config = planned("worse", "later")
    declarations.record(files.config)
    found = files.judged().set_index("claim")["marks"].to_dict()
    assert found == {"worse": "edited after 6 values were there", "later": "declared after 3 values were there"}, (
        "epsilon's"
    )
    assert len(declarations.read(cells.RESULTS / "digits")) == 3
    declarations.record(files.config)
    assert len(declarations.read(cells.RESULTS / "digits")) == 3
    (cells.RESULTS / "digits" / declarations.NAME).write_text("[{}]")
    with pytest.raises(UserError, match=r"declared_claims.json is damaged \(entry 1 does not say claim\)"):
        files.judged()


def test_other_words_for_the_same_prediction_are_no_edit_and_are_marked_as_words(own):
    own("worse")
    files = Measured(planned("worse"))
    declarations.record(files.config)
    files.tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    own("worse", says="x0 is much worse", source={"text": "somebody else"})
    assert files.judged().iloc[0]["marks"] == "reworded since it was declared"
    declarations.record(files.config)
    assert files.judged().iloc[0]["marks"] == "reworded after 6 values were there"
    own("worse")
    assert files.judged().iloc[0]["marks"] == "", "as it was at first"


@pytest.mark.parametrize("change", ["metric", "variant"])
def test_a_claim_that_means_something_else_by_the_study_is_edited_too(own, change):
    own("worse", left="mine")
    study = copy.deepcopy(EXAMPLE)
    study["parameterizations"]["mine"] = {"target": "x0"}
    study["grid"] |= {"parameterizations": ["epsilon", "mine"], "claims": ["worse"]}
    files = Measured(config.validate(copy.deepcopy(study)))
    declarations.record(files.config)
    files.tell({"epsilon": [2.0, 2.1, 2.2], "mine": [3.0, 3.1, 3.2]})
    if change == "metric":
        study["metric"]["names"] = ["kid", "frechet"]
    else:
        study["parameterizations"]["mine"] = {"target": "v"}
    files.config = config.validate(study)
    declarations.record(files.config)
    (claim,) = claims.of(files.config)
    before = declarations.read(cells.RESULTS / "digits")
    assert declarations.of(before, files.config, claim).marks == ("edited after 6 values were there",)


def test_a_claim_that_is_withdrawn_after_values_were_there_stays_and_counts(own):
    own("worse")
    own("better", predicts={"less": 0.9})
    files = Measured(planned("worse", "better"))
    declarations.record(files.config)
    files.config = planned("worse")
    assert files.judged()["claim"].to_list() == ["worse"], "before there are values nothing is hidden"
    files.tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    worse, gone = files.judged().to_dict("records")
    assert (gone["claim"], gone["verdict"], gone["seeds"]) == ("better", OPEN, 0)
    assert gone["marks"] == "withdrawn, and 6 values are there"
    assert worse["p_holm"] == pytest.approx(2 * worse["p_value"])
    assert "withdrawn, and 6 values are there" in page.render(files.config, cells.RESULTS / "digits")


def test_an_edit_that_needs_other_cells_is_refused_until_the_study_runs_again(own):
    own("worse")
    files = Measured(planned("worse")).tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    own("worse", left={"target": "u"})
    with pytest.raises(UserError, match=r"claims/worse.yaml is about 'u' now, which the study's grid lacks"):
        files.judged()


def test_the_page_and_the_command_say_the_verdict(own, capsys, monkeypatch):
    own("worse", says="x0 is <b>worse</b>")
    own("another", says="v is better", left={"target": "v"}, predicts={"less": 0.9})
    study = planned("worse")
    files = Measured(study).tell({"epsilon": [2.0, 2.1, 2.2], "x0": [3.0, 3.1, 3.2]})
    text = page.render(study, cells.RESULTS / "digits")
    section = text[text.index('id="claims"') : text.index('id="values"')]
    assert "x0 is &lt;b&gt;worse&lt;/b&gt;" in section and ">supported<" in section and "above 1.1" in section
    overlay = {"grid": {name: study["grid"][name] for name in ("parameterizations", "claims")}}
    Path("overlay.yaml").write_text(yaml.safe_dump(overlay))
    command = ["targetwise", "claims", "--configfile", "config/digits.yaml", "overlay.yaml"]
    monkeypatch.setattr("sys.argv", command)
    cli.main()
    out = capsys.readouterr().out
    assert "supported" in out and "frechet of x0 against epsilon: 1.4" in out and "another: v is better" in out
    assert files.judged().iloc[0]["looks"] == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "workflow/claims").glob("*.yaml")))
def test_every_claim_of_the_project_is_sound_and_short(name):
    content = claims.read(name)
    assert len(claims.file_of(name).read_text().splitlines()) <= 15
    assert content["says"][0].islower() or content["says"].split()[0] in ("FID",)


def test_every_study_of_claims_is_sound_and_every_claim_is_in_one():
    used = set()
    for path in sorted((ROOT / "config").glob("*.yaml")):
        names = (yaml.safe_load(path.read_text()).get("grid") or {}).get("claims") or []
        if names:
            study = config.load(stack(path))
            assert {claim.name for claim in claims.of(study)} == set(names)
            used |= set(names)
    assert used == set(claims.known())
