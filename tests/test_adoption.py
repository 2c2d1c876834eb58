"""What a run would make again although it would come out the same, and what must be made again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_dataset

from targetwise import cells
from targetwise.data import store
from targetwise.files import read_json, write_json
from targetwise.jobs import adoption
from targetwise.metric import fid, reference
from targetwise.recipe import config
from targetwise.sampling.stage import sample
from targetwise.training.loop import train
from targetwise.training.stopping import Stop

SMALL = {
    "study": "tiny",
    "grid": {"parameterizations": ["v"], "seeds": [0]},
    "scales": {"tiny": {"width": 16, "layers": 1}},
    "training": {"steps": 2, "global_batch": 4, "log_every": 1},
    "sampling": {"steps": 2, "images": 4, "batch": 4},
}
REFERENCE = Path("data/digits/reference/digits-fast-train.npz")
OUTPUTS = {
    "train": ["model.safetensors", "train.jsonl", "training.json"],
    "sample": [f"samples/ddim-2/draw0.{ending}" for ending in ("npz", "json")],
    "fid": ["fid/ddim-2/draw0.json"],
}


@pytest.fixture
def study(project, monkeypatch):
    """A trained and sampled cell, in a project whose parameterizations may be edited."""
    (project / "workflow").unlink()
    shutil.copytree(Path(adoption.__file__).parents[3] / "workflow", project / "workflow")
    random = np.random.default_rng(0)
    write_dataset(project / "data/digits", random.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8))
    digest = read_json(Path("data/digits/manifest.json"))["splits"]["train"]["sha256"]
    monkeypatch.setattr("targetwise.cells.specification.declared", lambda *_: digest)
    monkeypatch.setattr("targetwise.cells.agreement.declared", lambda *_: digest)
    (project / "small.yaml").write_text(json.dumps(SMALL))
    loaded = config.load([Path("config/digits.yaml"), Path("small.yaml")])
    cells.write_specifications(loaded)
    run(loaded, "train")
    run(loaded, "sample")
    reference.make(reference.Selection.asked({"dataset": "digits", **loaded["metric"]}), REFERENCE)
    run(loaded, "fid")
    shutil.rmtree(cell(loaded).folder / "kept")
    return loaded


def cell(study):
    (only,) = cells.grid(study)
    return only


def run(study, rule):
    """Do the job of a rule, as its script does."""
    folder = cell(study).folder
    specification, images = read_json(folder / "cell.json"), store.load(Path("data/digits"), "train")
    if rule == "train":
        train(specification, images, folder, save_every_seconds=1e9, stop=Stop())
    elif rule == "sample":
        options = read_json(folder.parents[1] / "sampling-ddim-2.json")
        sample(specification, options, images, folder, 0, folder / "samples/ddim-2/draw0.npz")
    else:
        samples, row = folder / "samples/ddim-2/draw0.npz", folder / "fid/ddim-2/draw0.json"
        fid.write_draw(specification, read_json(folder.parents[2] / "metric.json"), samples, REFERENCE, row)


def job(study, rule):
    class Wildcards(dict):
        __getattr__ = dict.__getitem__

    values = {"parameterization": "v", "scale": "tiny", "seed": "0", "sampler": "ddim-2", "draw": "0"}
    outputs = [str(cell(study).folder / name) for name in OUTPUTS[rule]]
    return SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=Wildcards(values), output=outputs)


def delete(study, rule):
    """Delete a job's outputs, as Snakemake does before the job starts."""
    for output in job(study, rule).output:
        Path(output).unlink()


def facts(study, rule):
    return (cell(study).folder / OUTPUTS[rule][-1]).read_bytes()


@pytest.mark.parametrize("rule", ["train", "sample", "fid"])
def test_what_is_up_to_date_is_put_back(study, rule):
    before = facts(study, rule)
    assert adoption.adopt(study, [job(study, rule)]) == 1
    delete(study, rule)
    run(study, rule)
    assert facts(study, rule) == before, "the time of the first run included"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, []),
        ({"forceall": True}, ["train", "sample"]),
        ({"forcerun": {"train"}}, ["train"]),
        ({"forcerun": {"results/tiny/v/tiny/seed0/samples/ddim-2/draw0.npz"}}, ["sample"]),
        ({"forcetargets": True}, ["sample"]),
    ],
)
def test_forced_is_what_somebody_asked_for_and_not_what_a_kill_left(study, settings, wanted):
    """Snakemake forces the jobs of a killed driver by itself; their results may be whole by now."""
    outputs = job(study, "sample").output
    dag = SimpleNamespace(targetfiles=set(outputs[:1]), targetrules=set())
    asked = SimpleNamespace(**{"forceall": False, "forcerun": frozenset(), "forcetargets": False, **settings})
    jobs = [job(study, "train"), job(study, "sample")]
    assert [each.rule.name for each in adoption.forced(dag, asked, jobs)] == wanted


@pytest.mark.parametrize("rule", ["train", "sample", "fid"])
def test_what_is_forced_is_made_again_although_it_is_kept(study, rule):
    before = facts(study, rule)
    adoption.adopt(study, [job(study, rule)])
    adoption.forget("tiny", [job(study, rule)])
    delete(study, rule)
    run(study, rule)
    assert facts(study, rule) != before


def test_a_row_is_put_back_when_the_same_reference_is_made_again_and_no_other(study):
    """Its facts say where and when it was made, so for Snakemake it is another file."""
    before = facts(study, "fid")
    for name in (REFERENCE, REFERENCE.with_suffix(".json")):
        name.unlink()
    assert adoption.adopt(study, [job(study, "fid")]) == 1
    delete(study, "fid")
    reference.make(reference.Selection.asked({"dataset": "digits", **study["metric"]}), REFERENCE)
    run(study, "fid")
    assert facts(study, "fid") == before
    other = read_json(REFERENCE.with_suffix(".json"))
    write_json(REFERENCE.with_suffix(".json"), {**other, "images_sha256": "0" * 64})
    assert adoption.adopt(study, [job(study, "fid")]) == 0


def test_samples_of_another_predict_x0_are_not_adopted_although_the_model_is_the_same(study):
    """A flat loss in the target's own space never calls predict_x0: the weights stay, the samples change."""
    path = Path("workflow/parameterizations/v.py")
    text = path.read_text()
    path.write_text(text.replace("    return ", "    return 0.5 * ") if text.count("    return ") == 2 else "")
    model = read_json(cell(study).folder / "training.json")["model_sha256"]
    lines = text.rsplit("    return ", 1)
    path.write_text(f"{lines[0]}    return 0.5 * ({lines[1].strip()})\n")
    delete(study, "train")
    run(study, "train")
    assert read_json(cell(study).folder / "training.json")["model_sha256"] == model
    before = facts(study, "sample")
    assert adoption.adopt(study, [job(study, "sample")]) == 0
    delete(study, "sample")
    run(study, "sample")
    assert json.loads(facts(study, "sample"))["samples_sha256"] != json.loads(before)["samples_sha256"]


@pytest.mark.parametrize("damage", ["model.safetensors", "samples/ddim-2/draw0.npz"])
def test_what_is_damaged_is_not_adopted(study, damage):
    path = cell(study).folder / damage
    path.write_bytes(path.read_bytes()[:-1])
    assert adoption.adopt(study, [job(study, "train" if "model" in damage else "sample")]) == 0


def test_without_a_data_sets_digest_nothing_is_kept(study, monkeypatch):
    monkeypatch.setattr("targetwise.cells.agreement.declared", lambda *_: None)
    Path("data/digits/manifest.json").unlink()
    assert adoption.adopt(study, [job(study, "train")]) == 0
