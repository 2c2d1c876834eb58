"""Which files of a cell count as results of the present configuration: told from their digests."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import whole_outcome

from targetwise import cells
from targetwise.cells import agreement
from targetwise.cells.agreement import Agreement, parts
from targetwise.data.digests import declared
from targetwise.diffusion.randomness import golden_draw
from targetwise.errors import UserError
from targetwise.files import canonical_json, sha256_of_file, sha256_of_text, write_json
from targetwise.recipe import config


@pytest.fixture
def finished(project):
    """A finished cell of the demo, as its files tell, and its study."""
    study = config.load([Path("config/digits.yaml")])
    cell = cells.find(study, "v-tiny-1")
    files = {part.kind: part for part in parts(study, cell)}
    specifications = cells.specifications(study)
    model, curve = files["training"].others
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    curve.write_text('{"step": 1, "loss": 0.5, "time": 0}\n')
    names = ("parameterizations/v", "paths/linear", "networks/mlp", "times/uniform")
    sources = {f"workflow/{name}.py": sha256_of_file(Path(f"workflow/{name}.py")) for name in names}
    images = declared(study["datasets"]["digits"], "train")
    made_from = [specifications[cell.folder / "cell.json"], sources, images, golden_draw()]
    key = sha256_of_text(canonical_json(made_from))
    digests = {"model_sha256": sha256_of_file(model), "samples_sha256": "1" * 64}
    write_json(files["training"].facts, whole_outcome(key=key, model_sha256=digests["model_sha256"]))
    samples = {**digests, "draw": 0, "status": "finished", "reason": None}
    options = specifications[Path("results/digits/v/sampling-ddim-50.json")]
    sampled_by = {name: digest for name, digest in sources.items() if "times" not in name}
    sampled_by["workflow/samplers/ddim.py"] = sha256_of_file(Path("workflow/samplers/ddim.py"))
    specification = specifications[cell.folder / "cell.json"]
    made_from = [specification, sampled_by, digests["model_sha256"], "finished", options, 0, golden_draw()]
    samples_key = sha256_of_text(canonical_json(made_from))
    write_json(files["samples"].facts, {**samples, "key": samples_key})
    compared = {"reference_sha256": "3" * 64, "extractor_sha256": "4" * 64}
    metric = specifications[Path("results/digits/metric.json")]
    metrics = [sha256_of_file(Path(f"workflow/metrics/{name}.py")) for name in ("frechet", "kid")]
    measured = [specification["cell"], 1, "ddim-50", samples_key, 0, "finished", None, "1" * 64]
    decisive = [metric, *metrics, "3" * 64, "4" * 64, *measured, digests["model_sha256"]]
    key = sha256_of_text(canonical_json(decisive))
    write_json(files["row"].facts, {**samples, **compared, "key": key})
    return study, cell, files


def test_a_finished_cell_agrees_with_its_configuration(finished):
    study, cell, files = finished
    Agreement(study).require(cell)
    agreement.require_whole(files["training"])


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("training", "key", "2" * 64),
        ("samples", "model_sha256", "2" * 64),
        ("samples", "key", "2" * 64),
        ("row", "model_sha256", "2" * 64),
        ("row", "samples_sha256", "2" * 64),
        ("row", "extractor_sha256", "2" * 64),
        ("row", "reference_sha256", "2" * 64),
        ("row", "key", "2" * 64),
    ],
)
def test_a_file_made_from_something_else_is_named(finished, kind, key, value):
    study, cell, files = finished
    path = files[kind].facts
    write_json(path, {**json.loads(path.read_text()), key: value})
    with pytest.raises(UserError, match=f"^{path} is of another configuration, "):
        Agreement(study).require(cell)


def test_a_row_is_held_against_the_reference_that_lies_here(finished):
    study, cell, _ = finished
    facts = Path("data/digits/reference/digits-fast-train.json")
    write_json(facts, {"images_sha256": "3" * 64, "extractor_sha256": "4" * 64, "environment": {"host": "other"}})
    Agreement(study).require(cell)
    write_json(facts, {"images_sha256": "5" * 64, "extractor_sha256": "4" * 64})
    with pytest.raises(UserError, match=r"fid/ddim-50/draw0.json is of another configuration"):
        Agreement(study).require(cell)


@pytest.mark.parametrize("stage", ["metric", "reference"])
def test_a_row_of_another_protocol_is_of_another_configuration(finished, monkeypatch, stage):
    study, cell, _ = finished
    monkeypatch.setitem(cells.PROTOCOL, stage, cells.PROTOCOL[stage] + 1)
    with pytest.raises(UserError, match=r"fid/ddim-50/draw0.json is of another configuration"):
        Agreement(study).require(cell)


@pytest.mark.parametrize(
    "change",
    [
        lambda study: study["training"].update(steps=601),
        lambda study: study["parameterizations"].update(v={"target": "v", "weighting": "snr"}),
        lambda study: study["sampling"].update(seed=1),
        lambda study: study["metric"].update(implementation="clean-fid"),
        lambda study: study["metric"].update(names=["kid", "frechet"]),
        lambda study: study["metric"].update(extractor="inception"),
        lambda study: study["metric"]["reference"].update(split="test"),
    ],
    ids=["training", "variant", "sampling", "metric", "metrics", "extractor", "reference"],
)
def test_files_of_another_configuration_are_not_recorded(finished, change):
    study, cell, _ = finished
    change(study)
    with pytest.raises(UserError, match="is of another configuration"):
        Agreement(study).require(cell)


def test_an_edited_parameterization_or_metric_is_another_one(finished):
    study, cell, _ = finished
    own = Path("own")
    shutil.copytree(Path("workflow").resolve(), own)
    Path("workflow").unlink()
    own.rename("workflow")
    Agreement(study).require(cell)
    for edited, named in (("metrics/kid", "draw0"), ("parameterizations/v", "training")):
        with Path(f"workflow/{edited}.py").open("a") as file:
            file.write("# edited\n")
        with pytest.raises(UserError, match=rf"{named}.json is of another configuration"):
            Agreement(study).require(cell)


def test_a_training_by_ones_own_rule_may_record_no_key(finished):
    study, cell, files = finished
    facts = json.loads(files["training"].facts.read_text())
    write_json(files["training"].facts, whole_outcome(model_sha256=facts["model_sha256"]))
    Agreement(study).require(cell)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_facts_that_cannot_be_read_are_named(finished, content):
    study, cell, files = finished
    files["samples"].facts.write_text(content)
    with pytest.raises(UserError, match=r"draw0.json is damaged.*delete it; `snakemake .* makes it again$"):
        Agreement(study).require(cell)


def test_weights_that_are_not_those_told_of_are_damaged(finished):
    _, _, files = finished
    model, curve = files["training"].others
    model.write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match=f"^{model} is missing, or is not the file that .*training.json records"):
        agreement.require_whole(files["training"])
    model.write_bytes(b"weights")
    curve.unlink()
    with pytest.raises(UserError, match=r"train.jsonl does not exist"):
        agreement.require_whole(files["training"])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"images_sha256": "5"}'])
def test_a_reference_that_says_nothing_contradicts_nothing(finished, content):
    """It is made again anyway; status, table and the start of a run go on."""
    study, cell, _ = finished
    facts = Path("data/digits/reference/digits-fast-train.json")
    facts.parent.mkdir(parents=True)
    facts.write_text(content)
    Agreement(study).require(cell)


@pytest.mark.parametrize("kind", ["samples", "row"])
@pytest.mark.parametrize("name", ["key", "draw", "status", "reason"])
def test_facts_that_say_too_little_are_named(finished, kind, name):
    study, cell, files = finished
    path = files[kind].facts
    write_json(path, {key: value for key, value in json.loads(path.read_text()).items() if key != name})
    with pytest.raises(UserError, match=f"^{path} is damaged: it does not say {name};"):
        Agreement(study).require(cell)
