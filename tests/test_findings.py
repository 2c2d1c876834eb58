"""The committed findings: the documents' numbers about them follow from the tables, by the code as it is."""

import itertools
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from targetwise.inference.compare import compare
from targetwise.inference.declared import Declared
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
