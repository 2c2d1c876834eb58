"""Snapshots of a training's weights, against trainings that end where they were taken."""

import contextlib

import numpy as np
import pytest
import torch
from helpers import EXAMPLE, ROOT
from safetensors.torch import load_file
from test_training import StopAfter, run, specification

from targetwise import cells
from targetwise.data.samples import load_samples
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, read_json_lines
from targetwise.operations.disk import disk
from targetwise.recipe import config as configuration
from targetwise.sampling.stage import sample
from targetwise.training.weights import read_weights

STEPS = 10
TAKEN = [3, 7]
OPTIONS = {**EXAMPLE["sampling"], "images": 6, "steps": 5}


def cell(**training):
    return specification(**{"global_batch": 8, "steps": STEPS, **training})


# --- the configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "sampling", "message"),
    [
        (
            {"steps": 20, "snapshots": [5, 20]},
            {},
            "training.snapshots holds 20; each must be below training.steps",
        ),
        ({"steps": 20, "snapshots": [9, 5]}, {}, "training.snapshots is [9, 5]; it must ascend: [5, 9]"),
        ({"steps": 20, "snapshots": []}, {}, "training.snapshots is []; it must hold at least 1"),
        ({"steps": 20, "snapshots": [0]}, {}, "training.snapshots.0 is 0; it must be at least 1"),
        ({"steps": 20, "snapshots": [5, 5]}, {}, "training.snapshots names 5 twice"),
        (
            {"steps": 20},
            {"snapshot": 5},
            "sampling.snapshot is 5; weights are kept after step 20 (training",
        ),
        ({"steps": 20, "snapshots": [5, 9]}, {"snapshot": 6}, "weights are kept after step 5, 9 and 20"),
        (
            {"steps": 20, "snapshots": [5], "ema_power": [0.05, 0.1]},
            {"snapshot": 5, "ema_length": 0.1},
            "sampling.snapshot and sampling.ema_length are both set",
        ),
    ],
)
def test_weights_that_are_not_kept_are_refused_before_any_training(study, training, sampling, message):
    with pytest.raises(UserError) as caught:
        configuration.validate(configuration.merge(study, {"training": training, "sampling": sampling}))
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_the_variant_and_the_sampling_that_are_named_are_those_of_the_grid(study):
    """Also where definitions that no grid names are wrong as well; in a set their order would change by chance."""
    study["grid"] |= {"parameterizations": ["v"], "samplings": ["late", "early"]}
    study["samplings"] = {"late": {}, "early": {"snapshot": 5}}
    with pytest.raises(UserError) as caught:
        configuration.validate(study)
    assert "configuration: parameterizations.v, samplings.early: sampling.snapshot is 5;" in str(caught.value)


def test_snapshots_are_an_axis_of_sampling(study):
    steps = study["training"]["steps"]
    study["training"]["snapshots"] = [1, 2]
    study["samplings"] = {f"at_{each}": {"snapshot": each} for each in (1, 2, steps)}
    study["grid"]["samplings"] = list(study["samplings"])
    specifications = cells.specifications(configuration.validate(study))
    options = {path.stem: content for path, content in specifications.items() if path.parent.name == "v"}
    assert [options[f"sampling-at_{each}"]["snapshot"] for each in (1, 2, steps)] == [1, 2, steps]
    trained = [content for path, content in specifications.items() if path.name == "cell.json"]
    assert all(each["training"]["snapshots"] == [1, 2] for each in trained)


def test_the_disk_that_they_take_is_counted(study):
    shapes = {"train": [10, 8, 8, 1], "test": [10, 8, 8, 1]}
    without = disk(study, shapes)
    study["training"]["snapshots"] = [1, 2, 3]
    found = disk(study, shapes)
    weights = without.states / (2 * 4)  # two states of a model, its average and two moments
    assert sum(found.cells.values()) - sum(without.cells.values()) == pytest.approx(
        3 * len(cells.grid(study)) * weights
    )
    assert found.states - without.states == pytest.approx(2 * 3 * weights)


# --- a training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(pixels, tmp_path_factory):
    """Folders of a training with snapshots, of the same without, and of those that end where they were taken."""
    of = {"with": cell(snapshots=TAKEN), "without": cell(), **{step: cell(steps=step) for step in TAKEN}}
    folders = {name: tmp_path_factory.mktemp(str(name)) for name in of}
    with contextlib.chdir(ROOT):
        for name, each in of.items():
            run(each, pixels, folders[name])
    return folders


@pytest.mark.parametrize("step", TAKEN)
def test_a_snapshot_is_what_a_training_that_ends_there_gives(step, trained):
    found = read_weights(trained["with"] / "model.safetensors", snapshot=step)
    expected = load_file(trained[step] / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_last_weights_and_the_log_are_those_of_a_training_without_them(trained):
    found = read_weights(trained["with"] / "model.safetensors")
    expected = load_file(trained["without"] / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    logs = (read_json_lines(trained[name] / "train.jsonl") for name in ("with", "without"))
    losses = [[line["loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("steps", [2, 3, 5, 8])
def test_stopped_and_resumed_gives_the_same_snapshots(steps, trained, pixels, tmp_path):
    with pytest.raises(StoppedEarlyError):
        run(cell(snapshots=TAKEN), pixels, tmp_path, StopAfter(steps))
    outcome = run(cell(snapshots=TAKEN), pixels, tmp_path)
    assert outcome["model_sha256"] == read_json(trained["with"] / "training.json")["model_sha256"]


def drawn(pixels, folder, output, each, **changes):
    sample(each, {**OPTIONS, **changes}, pixels, folder, 0, output)
    return load_samples(output)


def test_samples_of_a_snapshot_are_those_of_a_training_that_ends_there(trained, pixels, tmp_path):
    whole = cell(snapshots=TAKEN)
    found = {
        step: drawn(pixels, trained["with"], tmp_path / f"{step}/draw0.npz", whole, snapshot=step)
        for step in [*TAKEN, STEPS]
    }
    for step in TAKEN:
        shorter = drawn(pixels, trained[step], tmp_path / f"shorter{step}/draw0.npz", cell(steps=step))
        assert np.array_equal(found[step], shorter)
    plain = drawn(pixels, trained["with"], tmp_path / "plain/draw0.npz", whole)
    assert np.array_equal(found[STEPS], plain)
    assert not np.array_equal(found[3], found[7]) and not np.array_equal(found[7], plain)


@pytest.mark.parametrize(("name", "has"), [("without", "it has none"), ("with", "it has those after step 3 and 7")])
def test_weights_that_were_not_kept_are_not_sampled(name, has, trained, pixels, tmp_path):
    each = cell(snapshots=TAKEN) if name == "with" else cell()
    with pytest.raises(UserError, match=f"holds no snapshot after step 5; {has}"):
        drawn(pixels, trained[name], tmp_path / "a/draw0.npz", each, snapshot=5)
    assert not (tmp_path / "a").exists()
