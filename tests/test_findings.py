"""The committed findings: the documents' numbers about them follow from the tables, by the code as it is."""

import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path

import keep
import pandas as pd
import pytest
import verdict_figure

from targetwise.errors import UserError
from targetwise.files import sha256_of_json
from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
from targetwise.recipe import claims
from targetwise.recipe import config as configuration

TEN_SEEDS = Path("findings/digits-ten-seeds.csv")
OVERLAYS = [Path("config/digits.yaml"), Path("config/ten_seeds.yaml")]


@pytest.fixture(scope="module")
def ten_seeds():
    return pd.read_csv(TEN_SEEDS)


def test_the_table_is_of_the_study_that_is_committed(ten_seeds):
    study = configuration.load(OVERLAYS)
    cells = itertools.product(study["grid"]["parameterizations"], study["grid"]["seeds"])
    assert list(zip(ten_seeds["parameterization"], ten_seeds["seed"], strict=True)) == list(cells)
    assert set(ten_seeds["status"]) == {"finished"}
    assert set(ten_seeds["n"]) == {study["sampling"]["images"]}
    for column in ("samples_sha256", "model_sha256"):
        assert len(set(ten_seeds[column])) == 30 and ten_seeds[column].str.fullmatch("[0-9a-f]{64}").all()


def test_three_of_ten_seeds_do_not_speak_against_ten(ten_seeds):
    """What was promised: in at least 95 % of studies no verdict is wrong, and all intervals hold."""
    declared = Declared(None, configuration.load(OVERLAYS)["comparison"]["smallest_difference"], {})
    values = ten_seeds[["parameterization", "seed", "value"]]
    whole = compare(values, declared).pairs.set_index(["a", "b"])
    said, wrong, held, subsets = Counter(), 0, 0, list(itertools.combinations(range(10), 3))
    for seeds in subsets:
        found = compare(values[values["seed"].isin(seeds)], declared).pairs.set_index(["a", "b"])
        kinds = [
            "not resolved" if few == "not resolved" else "as ten" if few == ten else "against ten"
            for few, ten in zip(found["verdict"], whole["verdict"], strict=True)
        ]
        said.update(zip(found.index, kinds, strict=True))
        wrong += "against ten" in kinds
        held += bool(((found["low"] <= whole["ratio"]) & (whole["ratio"] <= found["high"])).all())
    assert len(subsets) == 120
    assert wrong <= 0.05 * len(subsets)
    assert held >= 0.95 * len(subsets)
    text = Path("docs/statistics.md").read_text()
    for a, b in [("v", "epsilon"), ("v", "x0"), ("epsilon", "x0")]:
        pair = (a, b) if (a, b) in whole.index else (b, a)
        counts = " | ".join(str(said[pair, kind]) for kind in ("as ten", "not resolved", "against ten"))
        assert f"| {a} against {b} | {counts} |" in text
    assert re.search(rf"ratios of ten seeds in {held} of the 120", text)


def test_the_documents_quote_what_ten_seeds_say(ten_seeds):
    found = compare(ten_seeds[["parameterization", "seed", "value"]], Declared(None, 0.1, {})).pairs
    text = " ".join(Path("docs/statistics.md").read_text().split())
    for pair in found.itertuples():
        is_lower = pair.verdict == "better"
        higher = pair.b if is_lower else pair.a
        ratios = [ratio if is_lower else 1 / ratio for ratio in (pair.low, pair.ratio, pair.high)]
        less, by, more = sorted(100 * (1 - ratio) for ratio in ratios)
        assert f"below {higher} by {by:.0f} % ({less:.0f} to {more:.0f})" in text


def kept(project, **changes):
    """Return the page's text for a study that was kept, of three claims."""
    study = Path("results/found")
    (study / "v/tiny/seed0").mkdir(parents=True)
    row = {
        "claim": "ranking_v",
        "says": "epsilon samples better than v",
        "setting": "tiny",
        "quantity": "frechet",
        "left": "v",
        "right": "epsilon",
        "unit": "ratio",
        "statistic": "mean",
        "seeds": 5,
        "estimate": 0.5,
        "low": 0.4,
        "high": 0.6,
        "predicts": "above 1.1",
        "p_holm": 0.001,
        "verdict": "contradicted",
        "lacking": "",
        "marks": "edited after 3 values were there",
    }
    alone = {"claim": "noise_floor", "right": "", "seeds": 1, "low": None, "high": None, "p_holm": None}
    more = {"unit": "difference", "estimate": 0.5, "verdict": "supported", "marks": "", "claim": "v_clipped"}
    rows = pd.DataFrame([row, {**row, **alone, "verdict": "open"}, {**row, **more}])
    rows.to_csv(study / "claims.csv", index=False)
    cells = {"parameterization": ["v", "epsilon"], "status": ["finished", changes.get("status", "finished")]}
    pd.DataFrame(cells).to_csv(study / "table.csv", index=False)
    made = {
        "versions": dict.fromkeys(keep.PACKAGES, "1.2"),
        "machine": {"cpu": "Chip", "instructions": "AVX512"},
        "code": {"commit": "c" * 40, "modified": False},
    }
    (study / "v/tiny/seed0/training.json").write_text(json.dumps({"environment": made, "finished_at": 1_790_000_000}))
    (study / "v/tiny/seed0/benchmark").mkdir()
    for job, seconds in {"train": 100, "fid-ddim-50-draw0": 21, "manifest": 1000}.items():
        (study / f"v/tiny/seed0/benchmark/{job}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    keep.FOLDER.mkdir()
    about = 'found: {question: "Is it so?", limits: Not much., asked: {some/where: [3, 4]}}'
    keep.QUESTIONS.write_text(about)
    keep.keep(study)
    return keep.page(f"before\n{keep.BEGIN}\nold\n{keep.END}\nafter", keep.tables())


def test_what_is_kept_says_verdict_number_and_where_it_was_made(project):
    text = kept(project)
    assert text.startswith("before\n") and text.endswith("\nafter") and "old" not in text
    link = "[epsilon samples better than v](../workflow/claims/ranking_v.yaml)"
    assert "## 3 verdicts in 1 study\n" in text and f"- **Contradicted**, 1:\n    - {link}\n" in text
    assert "### Is it so?" in text and "*What it cannot say.* Not much." in text
    links = [f"[some/where#{number}](https://github.com/some/where/issues/{number})" for number in (3, 4)]
    assert f"*Where it was asked.* {links[0]} and {links[1]}." in text
    assert "Study `found`, 3 verdicts: 1 supported, 1 contradicted and 1 open." in text
    # Not the third, which is no ratio, nor the second, of which there is no interval.
    assert "![Measured ratios with their intervals: ranking_v 0.50, contradicted](images/findings-found.svg)" in text
    link = "[epsilon samples better than v](../workflow/claims/ranking_v.yaml)"
    assert (
        f"| {link} | tiny | frechet: v / epsilon | 0.50 (0.40 … 0.60) | above 1.1 | 0.001 | "
        "5 (edited after 3 values were there) | **contradicted** |"
    ) in text
    assert "| tiny | frechet: v | 0.50 | above 1.1 | – | 1 (edited after 3 values were there) | **open** |" in text
    assert "| frechet: v − epsilon | +0.50 (+0.40 … +0.60) |" in text
    versions = "targetwise 1.2, torch 1.2, numpy 1.2, scipy 1.2"
    assert f"Measured on Chip (AVX512), {versions}, 2026-09-21, commit cccccccccccc; 2 minutes of jobs" in text


def test_an_unfinished_study_is_not_kept(project):
    with pytest.raises(UserError, match="1 row is missing; finish the study"):
        kept(project, status="missing")
    with pytest.raises(UserError, match=r"results/none has no claims.csv"):
        keep.keep(Path("results/none"))
    keep.QUESTIONS.write_text("other: {}")
    with pytest.raises(UserError, match=r"questions.yaml does not say what found asks"):
        keep.keep(Path("results/found"))
    assert not list(keep.FOLDER.glob("*.csv"))


def test_the_page_is_what_its_tables_give():
    text = keep.PAGE.read_text()
    assert keep.page(text, keep.tables()) == text
    for study, svg in keep.figures(keep.tables()).items():
        assert (keep.IMAGES / f"findings-{study}.svg").read_text() == svg


def test_the_figure_has_the_ground_of_each_prediction_and_the_interval():
    row = {"unit": "ratio", "statistic": "mean", "setting": "tiny", "verdict": "open"}
    predicted = {"min_snr_v": (0, 0.9), "ranking_v": (1.1, math.inf), "weight_not_output": (1 / 1.1, 1.1)}
    bars = {"min_snr_v": (0.5, 0.6, 0.7), "ranking_v": (0.9, 1.0, 1.2), "weight_not_output": (0.8, 2.0, 5.0)}
    frame = pd.DataFrame(
        [{**row, "claim": name, **dict(zip(("low", "estimate", "high"), bars[name], strict=True))} for name in bars]
    )
    assert len(verdict_figure.drawn(pd.concat([frame, frame.assign(unit="difference"), frame.assign(low=None)]))) == 3
    found = {}

    class Seen(verdict_figure.Figure):
        def subplots(self):
            found["axes"] = super().subplots()
            return found["axes"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_figure, "Figure", Seen)
        assert verdict_figure.draw(frame) == verdict_figure.draw(frame)
    axes = found["axes"]
    low, high = axes.get_xlim()
    assert low < 0.5 and high > 5
    for ground, name in zip(axes.patches, bars, strict=True):
        start, end = predicted[name]
        assert ground.get_x() == pytest.approx(max(start, low))
        assert ground.get_x() + ground.get_width() == pytest.approx(min(end, high))
    intervals = [line.get_xdata() for line in axes.lines if len(set(line.get_xdata())) == 2]
    assert [tuple(each) for each in intervals] == [(each[0], each[2]) for each in bars.values()]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(bars)


def test_every_table_that_is_kept_is_on_the_page_and_made_by_make_studies():
    kept = {path.name.removesuffix("-claims.csv") for path in keep.FOLDER.glob("*-claims.csv")}
    assert kept == set(keep.tables())
    (listed,) = re.findall(r"^STUDIES := \$\(addprefix digits/,((?:.|\\\n)*?)\)$", Path("Makefile").read_text(), re.M)
    assert kept == set(listed.replace("\\\n", " ").split())


def test_every_verdict_that_is_kept_is_of_a_claim_as_it_is_and_of_cells_that_are_kept():
    for study, frame in keep.tables().items():
        rows = pd.read_csv(keep.FOLDER / f"{study}-cells.csv")
        assert set(rows["status"]) <= {"finished", "diverged"}
        assert rows["model_sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()
        for row in frame.itertuples():
            assert row.sha256 == sha256_of_json(claims.read(row.claim)), f"{study}: {row.claim} was edited since"
