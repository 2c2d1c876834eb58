"""The published numbers stand beside ours only where both measure the same, and every difference is named."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from targetwise.recipe import config as configuration
from targetwise.report import papers, published


def summary(**means):
    """Return a summary with the mean of each ``name_scale``."""
    rows = [(*name.split("_"), mean, 1) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["parameterization", "scale", "mean", "seeds"])


@pytest.fixture
def reference():
    return configuration.load([published.PRESET])


def row(found, part, **wanted):
    return next(each for each in found[part] if all(each[key] == value for key, value in wanted.items()))


def test_the_reference_study_differs_in_nothing(reference):
    found = published.beside(reference, summary(epsilon_small=18.7, v_medium=11.0))
    assert found["differences"] == []
    assert found["scales"] == ["small", "medium", "large"]
    assert row(found, "ours", entry="epsilon")["values"] == [18.7, None, None]
    assert row(found, "ours", entry="v")["values"] == [None, 11.0, None]
    assert row(found, "published", entry="epsilon")["values"] == [18.58, 8.46, 7.17]
    assert row(found, "published", entry="x0", setting="baseline")["values"] == [25.25, 13.56, 11.99]


def test_what_failed_and_what_was_not_run_is_no_number(reference):
    found = published.beside(reference, summary(epsilon_small=18.7))
    failed = row(found, "published", entry="deepseek-reasoner", setting="agent")
    assert failed["values"] == [276.91, 301.83, None] and failed["note"] == "large: failed"
    assert row(found, "published", entry="qwen3.6-plus", setting="vanilla")["values"] == [18.5, 8.98, None]
    assert row(found, "published", entry="claude-opus-4.6", setting="agent")["note"] == "a blend of epsilon and v"


def test_every_option_in_which_the_clean_protocol_differs_is_named():
    found = published.beside(configuration.load(), summary(epsilon_small=18.7))
    assert {each["option"]: (each["ours"], each["theirs"]) for each in found["differences"]} == {
        "training.precision": ("cuda bf16, cpu auto", "cuda fp16, cpu fp32"),
        "training.output_in_fp32": ("yes", "no"),
        "sampling.widen_output": ("yes", "no"),
        "sampling.last_alpha_is_one": ("yes", "no"),
        "sampling.quantization": ("round", "truncate"),
        "global batch at large": ("128", "64"),
    }


def test_another_budget_is_a_difference(reference):
    reference["training"]["steps"] = 100
    reference["sampling"]["images"] = 2048
    found = published.beside(reference, summary(epsilon_small=18.7))
    assert {each["option"] for each in found["differences"]} == {"training.steps", "sampling.images"}


def test_another_network_of_the_same_name_is_not_compared(reference):
    reference["scales"]["small"]["channels"] = [32, 64]
    assert published.beside(reference, summary(epsilon_small=18.7))["scales"] == ["medium", "large"]
    reference["grid"]["scales"] = ["small"]
    assert published.beside(reference, summary(epsilon_small=18.7)) is None


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("data", "dataset", "digits"), ("metric", "extractor", "digits"), ("metric", "reference", {"split": "test"})],
)
def test_another_measure_is_not_compared(reference, section, key, value):
    reference[section][key] = value
    assert published.beside(reference, summary(epsilon_small=18.7)) is None


def test_a_variant_of_another_protocol_stands_beside_nothing(reference):
    reference["parameterizations"]["long"] = {"target": "v", "training": {"steps": 70000}}
    reference["grid"]["parameterizations"] = ["epsilon", "long"]
    found = published.beside(reference, summary(epsilon_small=18.7, long_small=9.0))
    assert [each["entry"] for each in found["ours"]] == ["epsilon"]
    reference["grid"]["samplings"] = ["few"]
    assert published.beside(reference, summary(epsilon_small=18.7)) is None


def means(**values):
    rows = [(name, "small", value) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["parameterization", "setting", "mean"])


def test_the_tables_of_papers_stand_beside_the_variants_with_their_output_and_objective():
    study = configuration.load()
    study["grid"]["parameterizations"] = ["epsilon", "v", "x0", "x0_snr", "x0_in_v"]
    stochastic, ddim = papers.beside(study, means(epsilon=20.0, v=21.0, x0=25.0, x0_snr=19.0))
    assert (stochastic["table"], ddim["table"]) == ("CIFAR-10, stochastic sampler", "CIFAR-10, DDIM")
    # Salimans & Ho have no x0 with a flat loss; v's own flat loss is SNR + 1, and so is x0's in v's space.
    assert {row["name"]: row["fid"] for row in ddim["rows"]} == {
        "x0_snr": 2.75,
        "x0_in_v": 2.65,
        "epsilon": 2.91,
        "v": 2.87,
    }
    assert {row["name"]: row["ours"][0] for row in ddim["rows"]} == {
        "x0_snr": 19.0,
        "x0_in_v": None,
        "epsilon": 20.0,
        "v": 21.0,
    }
    assert "best value during training" in ddim["caveats"][0]


def test_what_a_paper_says_diverged_is_no_number():
    study = configuration.load()
    study["parameterizations"]["epsilon_t"] = {"target": "epsilon", "weighting": "truncated_snr"}
    study["grid"]["parameterizations"] = ["epsilon", "epsilon_t"]
    _, ddim = papers.beside(study, means(epsilon=20.0, epsilon_t=30.0))
    assert {row["name"]: row["fid"] for row in ddim["rows"]} == {"epsilon": 2.91, "epsilon_t": None}


def test_other_data_and_a_variant_alone_stand_beside_nothing(study):
    assert papers.beside(study, means(epsilon=1.0, v=1.0)) == []
    alone = configuration.load()
    alone["grid"]["parameterizations"] = ["epsilon", "u"]
    assert papers.beside(alone, means(epsilon=20.0)) == []


def test_the_cell_that_was_run_is_the_reference_study_and_the_pages_say_what_its_record_says():
    root = Path(__file__).parent.parent
    folder = root / "benchmarks/results/cells/reference@epsilon-small-42"
    row = json.loads((folder / "draw0.json").read_text())
    record = json.loads((folder / "manifest.json").read_text())
    (draw,) = record["draws"]
    assert hashlib.sha256((folder / "draw0.json").read_bytes()).hexdigest() == draw["row_sha256"]
    assert row["key"] and row["model_sha256"] == record["training"]["model_sha256"]

    study = configuration.load([published.PRESET])
    ran = record["configuration"]["cell.json"]
    for option in ("steps", "global_batch", "learning_rate", "ema_decay", "precision", "output_in_fp32"):
        assert ran["training"][option] == study["training"][option]
    for option in ("last_alpha_is_one", "clipped_epsilon", "quantization", "widen_output", "images"):
        assert record["configuration"]["sampling-ddim-50.json"][option] == study["sampling"][option]

    task = (root / "docs/protocol.md").read_text()
    assert f"| ours | **{row['value']:.2f}** | {row['errors']['frechet']:.2f} | {row['values']['kid']:.5f} |" in task
    numbers = pd.read_csv(root / published.NUMBERS)
    values = numbers.query("entry == 'epsilon' and scale == 'small' and setting == 'baseline'")
    assert f"| published | **{values.fid.item():.2f}** |" in task
    told = " ".join((root / "docs/performance.md").read_text().split())
    seconds = record["seconds"]
    train, sample, measure = (round(seconds[name]) for name in ("train", "sample draw 0", "measure draw 0"))
    assert f"{train // 60} min {train % 60} s of training" in told
    assert f"{sample // 60} min {sample % 60} s of sampling" in told
    assert f"{measure // 60} min {measure % 60} s of measuring" in told
    assert f"its FID is {row['value']:.2f}" in told
    assert f"first cell came to: FID {row['value']:.2f} in 12 minutes" in " ".join(
        (root / "README.md").read_text().split()
    )
