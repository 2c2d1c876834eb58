"""A cell's manifest: all that its number was made from and with, and nothing of whoever writes it."""

import json
import re
import shutil
from contextlib import chdir
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from helpers import EXAMPLE, ROOT

from targetwise import cells, chain, files, provenance
from targetwise.errors import UserError
from targetwise.recipe import config
from targetwise.recipe.schema import read_yaml
from targetwise.records import manifest
from targetwise.training.stopping import Stop

DRAWS = (0, 1)


def short_study(**changes):
    """Return the study of the workflow's tests: seconds per cell."""
    short = config.merge(read_yaml(ROOT / "tests/tiny.yaml"), {"study": "short", **changes})
    return config.merge(EXAMPLE, short)


def empty_project(folder):
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with one cell of two draws, as `make cell-gpu` leaves it."""
    project = empty_project(tmp_path_factory.mktemp("trained"))
    study = short_study(sampling={"draws": len(DRAWS)})
    with chdir(project):
        chain.run(study, cells.find(study, "v-tiny-1"), Stop())
    return project


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """The cell's folder in a copy of the project, free to be changed; the test runs in it."""
    shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path("results/short/v/tiny/seed1")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def test_it_holds_the_digest_of_everything(folder):
    content = manifest.read(folder)
    assert content["cell"] == {"study": "short", "parameterization": "v", "scale": "tiny", "seed": 1}
    files_of = {"cell.json": folder, "sampling-ddim-4.json": folder.parents[1], "metric.json": folder.parents[2]}
    assert content["configuration"] == {name: files.read_json(where / name) for name, where in files_of.items()}
    assert content["configuration_sha256"] == {name: digest(where / name) for name, where in files_of.items()}
    names = ["parameterizations/v", "paths/linear", "networks/mlp", "times/uniform"]
    names += ["samplers/ddim", "metrics/frechet", "metrics/kid"]
    sources = [f"workflow/{name}.py" for name in names]
    assert content["code"]["sources"] == {source: digest(Path(source)) for source in sources}
    assert content["code"]["check_sha256"] == digest(folder.parents[1] / "check.json")
    assert content["training"]["model_sha256"] == digest(folder / "model.safetensors")
    assert content["training"]["log_sha256"] == digest(folder / "train.jsonl")
    images = np.load("data/digits/dataset.npz")["train"]
    assert content["data"]["train_sha256"] == sha256(images.tobytes()).hexdigest()
    assert [draw["draw"] for draw in content["draws"]] == [*DRAWS]
    for draw in content["draws"]:
        name = f"ddim-4/draw{draw['draw']}"
        row = files.read_json(folder / f"fid/{name}.json")
        assert (draw["value"], draw["values"], draw["n"]) == (row["value"], row["values"], 48)
        assert draw["row_sha256"] == digest(folder / f"fid/{name}.json")
        samples = np.load(folder / f"samples/{name}.npz")["arr_0"]
        assert draw["samples_sha256"] == sha256(samples.tobytes()).hexdigest()
        assert content["data"]["extractor_sha256"] == row["extractor_sha256"]
        assert content["data"]["reference_sha256"] == row["reference_sha256"]
    stages = ["train", "sample draw 0", "measure draw 0", "sample draw 1", "measure draw 1"]
    assert set(content["seconds"]) == set(stages) and all(each > 0 for each in content["seconds"].values())
    assert content["environments"] == [{"stages": stages, **provenance.environment()}]


def test_it_says_when_in_words_that_sort(folder):
    edit(folder / "training.json", finished_at=1_700_000_000.9)
    assert manifest.gather(folder)["training"]["finished_at"] == "2023-11-14T22:13:20+00:00"


def test_who_writes_it_leaves_no_trace(folder, monkeypatch):
    before = (folder / "manifest.json").read_bytes()
    for name in ("environment", "versions", "machine", "code"):
        monkeypatch.setattr(provenance, name, lambda: pytest.fail("asked what is here, not what was recorded"))
    monkeypatch.setattr("time.time", lambda: 0.0)
    (folder / "manifest.json").unlink()
    manifest.write(folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_stages_that_ran_elsewhere_are_told_apart(folder):
    row = folder / "fid/ddim-4/draw1.json"
    here = files.read_json(row)["environment"]
    there = {**here, "machine": {**here["machine"], "gpu": "NVIDIA H200", "cuda": None}}
    edit(row, environment=there)
    found = manifest.gather(folder)["environments"]
    assert [each["stages"] for each in found] == [
        ["train", "sample draw 0", "measure draw 0", "sample draw 1"],
        ["measure draw 1"],
    ]
    assert [each["machine"].get("gpu") for each in found] == [None, "NVIDIA H200"]
    manifest.write(folder)


def test_a_variant_of_two_files_names_both(tmp_path, monkeypatch):
    """And the digests of both, not of one twice, prove what it was trained with."""
    monkeypatch.chdir(empty_project(tmp_path))
    study = short_study(parameterizations={"v": {"target": "v", "loss_space": "epsilon"}})
    cell = cells.find(study, "v-tiny-0")
    chain.run(study, cell, Stop())
    sources = [Path(f"workflow/parameterizations/{name}.py") for name in ("epsilon", "v")]
    found = manifest.read(cell.folder)["code"]["sources"]
    assert {str(path): digest(path) for path in sources}.items() <= found.items() and len(found) == 8
    sources[0].write_text(f"# another comment\n{sources[0].read_text()}")
    with pytest.raises(UserError, match=r"training\.json is of another configuration"):
        manifest.write(cell.folder)


def test_a_diverged_cell_has_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(empty_project(tmp_path))
    study = short_study(training={"learning_rate": 1e30, "gradient_clip": 1e30})
    cell = cells.find(study, "v-tiny-0")
    chain.run(study, cell, Stop())
    content = manifest.read(cell.folder)
    (draw,) = content["draws"]
    assert content["training"]["status"] == draw["status"] == "diverged"
    assert (draw["value"], draw["n"]) == (None, 0)
    assert draw["reason"] == content["training"]["reason"] is not None


OTHER = "0" * 64


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ("training.json", {"key": OTHER}, "training.json is of another configuration"),
        ("training.json", {"model_sha256": OTHER}, "samples/ddim-4/draw0.json is of another configuration"),
        ("samples/ddim-4/draw1.json", {"key": OTHER}, "samples/ddim-4/draw1.json is of another configuration"),
        ("samples/ddim-4/draw1.json", {"samples_sha256": OTHER}, "fid/ddim-4/draw1.json is of another configuration"),
        ("fid/ddim-4/draw0.json", {"model_sha256": OTHER}, "fid/ddim-4/draw0.json is of another configuration"),
        ("fid/ddim-4/draw1.json", {"reference_n": 9}, "were measured against different references"),
        ("fid/ddim-4/draw1.json", {"n": "many"}, "not a whole row"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(folder, path, changes, words):
    before = (folder / "manifest.json").read_bytes()
    edit(folder / path, **changes)
    with pytest.raises(UserError, match=words) as refusal:
        manifest.write(folder)
    assert "\n" not in str(refusal.value)
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("path", ["training.json", "samples/ddim-4/draw1.json", "fid/ddim-4/draw0.json"])
def test_a_record_that_is_missing_is_named(folder, path):
    (folder / path).unlink()
    with pytest.raises(UserError, match=f"{re.escape(path)} does not exist"):
        manifest.write(folder)


def test_other_images_than_those_trained_on_are_refused(folder):
    edit(Path("data/digits/manifest.json"), splits={"train": {"sha256": OTHER}})
    with pytest.raises(UserError, match="another configuration, parameterization, data set or model"):
        manifest.write(folder)


def test_a_training_by_a_rule_of_ones_own_proves_no_source(folder):
    record = files.read_json(folder / "training.json")
    for name in ("key", "device", "processes"):
        del record[name]
    files.write_json(folder / "training.json", record)
    manifest.write(folder)
    assert manifest.read(folder)["training"]["key"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {}}, "not a whole manifest: data: 'dataset' is a required property"),
        ({"hostname": "mine"}, "not a whole manifest: .*'hostname' was unexpected"),
        ({"draws": []}, "not a whole manifest: draws"),
        ({"seconds": {"train": 1, "lunch": 1}}, "not a whole manifest: seconds.*lunch"),
    ],
)
def test_an_edited_manifest_is_refused(folder, changes, words):
    edit(folder / "manifest.json", **changes)
    with pytest.raises(UserError, match=words):
        manifest.read(folder)
