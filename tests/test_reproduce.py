"""A cell made again from nothing, and what is said of it: identical, or how far off and what goes with that."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import EXAMPLE, ROOT
from safetensors.numpy import load_file, save_file
from scipy import stats

from targetwise import cells, chain, cli, errors, provenance
from targetwise.errors import StoppedEarlyError, UserError
from targetwise.files import read_json, sha256_of_array, sha256_of_file, write_json
from targetwise.recipe import config
from targetwise.recipe.schema import read_yaml
from targetwise.records import comparison, manifest, reproduce
from targetwise.records.comparison import Side, compare
from targetwise.training import measurement
from targetwise.training.stopping import Stop

NAME = "short@v-tiny-1"
SAMPLES = Path("samples/ddim-4/draw0.npz")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A project whose study `short` has two seeds of v, made as a first run makes them."""
    project = tmp_path_factory.mktemp("recorded")
    shutil.copytree(ROOT / "workflow", project / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "config", project / "config")
    shutil.copy(ROOT / "config.yaml", project)
    tiny = config.merge(read_yaml(ROOT / "tests/tiny.yaml"), {"study": "short"})
    (project / "config/short.yaml").write_text(yaml.safe_dump(config.merge(EXAMPLE, tiny)))
    with chdir(project):
        for seed in (0, 1):
            chain.run(*chain.load(f"short/v-tiny-{seed}"), Stop())
    return project


@pytest.fixture
def project(recorded, tmp_path, monkeypatch):
    """A copy of it, free to be changed; the test runs in it, with a temporary folder of its own."""
    shutil.copytree(recorded, tmp_path / "project")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def folder(project):
    return cell_folder()


def cell_folder(seed=1):
    return cells.Cell("short", "v", "tiny", seed).folder


def again(name=NAME, stop=None, **options):
    return reproduce.reproduce(*reproduce.find(config.load(), name), stop or Stop(), **options)


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", "reproduce", *map(str, arguments)])
    monkeypatch.setattr(Stop, "listen", lambda self: self)  # the signals of this process are pytest's
    cli.main()


def contents(*roots):
    return {path: path.read_bytes() for root in roots for path in sorted(Path(root).rglob("*")) if path.is_file()}


def left_behind(project):
    return list((project.parent / "tmp").iterdir())


def edit(folder, change):
    """Change a manifest as ``change`` does."""
    content = read_json(folder / "manifest.json")
    change(content)
    write_json(folder / "manifest.json", content)


# --- the whole of it -----------------------------------------------------------------------------------------------


def test_on_the_same_machine_it_is_identical_and_nothing_is_touched(project, monkeypatch, capsys):
    before = contents("results", "data", "workflow", "config")
    call(monkeypatch, NAME)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [re.split("  +", line)[:2] for line in lines[:5]] == [
        ["model", "identical"],
        ["samples of draw 0", "identical"],
        ["FD (digits features) of draw 0", "identical"],
        ["kid of draw 0", "identical"],
        ["environment", "no recorded difference"],
    ]
    assert lines[5].startswith("spread ") and " lies within " in lines[5]
    assert lines[6] == "v-tiny-1 of study short is identical to its record"
    assert "training v-tiny-1" in said.err and "12/12 steps" in said.err, "from nothing, and it is seen"
    assert contents("results", "data", "workflow", "config") == before
    assert left_behind(project) == []


@pytest.mark.deep
@pytest.mark.parametrize("lost", ["cpu.json", ""])
def test_a_number_format_that_was_chosen_is_that_of_the_record(lost, project, monkeypatch):
    """Whatever a measurement would say now, and where the study's own record of the choice is gone."""
    left_open = {"study": "open", "training": {"precision": {"cpu": "auto"}, "compile": {"cpu": "auto"}}}
    overlay = config.merge(read_yaml(Path("config/short.yaml")), left_open)
    Path("config/open.yaml").write_text(yaml.safe_dump(overlay))
    found = {"values": {"precision": "bf16", "compile": False}, "compared": []}
    monkeypatch.setattr(measurement, "measure", lambda *_, **__: dict(found))
    study, cell = chain.load("open@v-tiny-0")
    chain.run(study, cell, Stop())
    assert manifest.read(cell.folder)["training"]["formats"] == found["values"]
    found["values"] = {"precision": "fp32", "compile": False}
    if lost:
        Path("results/open", lost).unlink()
    before = contents("results")
    assert again("open@v-tiny-0").identical
    assert contents("results") == before


@pytest.mark.deep
def test_elsewhere_it_says_how_far_off_and_what_goes_with_it(project, tmp_path):
    """The same machine, held to the instructions of an older one."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this machine has no instructions to do without")
    command = [sys.executable, "-c", "from targetwise.cli import main; main()", "reproduce", NAME]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "ATEN_CPU_CAPABILITY": "default",
        "TMPDIR": str(tmp_path / "tmp"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert re.search(
        r"^environment +train, sample draw 0, measure draw 0: .*instructions \w+ → DEFAULT", done.stdout, re.MULTILINE
    ), done.stdout + done.stderr
    is_off = " off: " in done.stdout
    assert done.returncode == (errors.EXIT_ERROR if is_off else 0)
    if is_off:
        assert re.search(r"^model +off: [\d,]+ of [\d,]+ weights differ, by at most ", done.stdout, re.MULTILINE)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: not identical to the record: model")
        assert last.endswith("; the metric is within the spread of the recorded seeds")
    assert left_behind(project) == []


def test_a_record_that_does_not_hold_is_one_line_and_exit_code_1(folder, project, monkeypatch, capsys):
    edit(folder, lambda content: content["draws"][0].update(samples_sha256="0" * 64))
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, NAME)
    assert left.value.code == errors.EXIT_ERROR
    said = capsys.readouterr()
    assert re.search(r"^model +identical$", said.out, re.MULTILINE)
    assert re.search(
        r"^samples of draw 0 +off: by how much is unknown, because the recorded draw0.npz is not here; "
        r"no recorded difference in the environment of sample draw 0 goes with it$",
        said.out,
        re.MULTILINE,
    )
    assert said.err.splitlines()[-1] == (
        "error: not identical to the record: samples of draw 0; the metric is within the spread of the recorded seeds"
    )
    assert left_behind(project) == []


# --- what is said of what is off -----------------------------------------------------------------------------------


@pytest.fixture
def made(folder, project):
    """The cell made again: a second copy of its files, free to be changed."""
    shutil.copytree(folder, project / "made")
    return project / "made"


def compared(made):
    sides = [Side(manifest.read(folder), folder) for folder in (cell_folder(), made)]
    return compare(*sides, [manifest.read(cell_folder(seed)) for seed in (0, 1)])


def off(made):
    return {each.name: each.off for each in compared(made).quantities if each.off}


def alter_weights(folder, change):
    """Change the weights of a cell, and its records with them."""
    weights = {name: array.copy() for name, array in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors")
    digest = sha256_of_file(folder / "model.safetensors")
    edit(folder, lambda content: content["training"].update(model_sha256=digest))


def test_weights_that_differ_are_counted_and_measured(made):
    def change(weights):
        array = next(array for _, array in sorted(weights.items()) if array.ndim == 2)
        array *= 0
        array.flat[:3] = [2.0, 0.0, 0.5]

    def further(weights):
        change(weights)
        array = next(array for _, array in sorted(weights.items()) if array.ndim == 2)
        array.flat[1] += 0.5
        array.flat[2] -= 0.25

    alter_weights(cell_folder(), change)
    alter_weights(made, further)
    total = sum(array.size for array in load_file(made / "model.safetensors").values())
    assert off(made) == {
        "model": f"2 of {total:,} weights differ, by at most 0.5, and by at most 0.25 of the largest weight of their "
        "tensor; no recorded difference in the environment of train goes with it"
    }


def test_another_file_with_the_same_weights_is_told(made):
    alter_weights(made, lambda weights: None)
    assert off(made)["model"].startswith("the bytes of the file differ, the weights do not")


def test_another_network_is_told(made):
    alter_weights(made, lambda weights: weights.pop(sorted(weights)[0]))
    assert off(made)["model"].startswith("it is another network")


@pytest.mark.parametrize("content", [None, b"something else"])
def test_without_the_recorded_weights_their_digest_is_compared_all_the_same(made, content):
    path = cell_folder() / "model.safetensors"
    path.unlink()
    assert off(made) == {}
    if content:
        path.write_bytes(content)
    alter_weights(made, lambda weights: weights[sorted(weights)[0]].fill(0))
    assert off(made)["model"].startswith("by how much is unknown, because the recorded model.safetensors is not here")


def alter_samples(folder, change):
    """Make the samples of a cell what ``change`` returns, and its records with them."""
    images = change(np.load(folder / SAMPLES)["arr_0"])
    np.savez(folder / SAMPLES, images)
    facts = (folder / SAMPLES).with_suffix(".json")
    digest = sha256_of_array(images)
    write_json(facts, {**read_json(facts), "samples_sha256": digest})
    edit(folder, lambda content: content["draws"][0].update(samples_sha256=digest))


def test_pixels_that_differ_are_counted_and_measured(made):
    """48 images of 8×8 pixels in three colours; 32 of these 3,072 pixels are 100 levels off in one, whichever way."""

    def grey(images):
        return np.full((48, 8, 8, 3), 100, dtype=np.uint8)

    def coloured(images):
        images = grey(images)
        images[0, :2, :, 0] = 200
        images[1, :2, :, 0] = 0
        return images

    alter_samples(cell_folder(), grey)
    alter_samples(made, coloured)
    assert off(made) == {
        "samples of draw 0": "1.04 % of the pixels differ, by 0.35 of 255 levels on average over all and 100 at "
        "most; no recorded difference in the environment of sample draw 0 goes with it"
    }


def test_without_the_recorded_samples_how_far_cannot_be_told(made):
    alter_samples(made, lambda images: np.full_like(images, 7))
    (cell_folder() / SAMPLES).unlink()
    assert off(made)["samples of draw 0"].startswith("by how much is unknown, because the recorded draw0.npz")


def test_a_metric_that_differs_is_given_with_both_values(made):
    edit(cell_folder(), lambda content: content["draws"][0].update(value=40.0, values={"frechet": 40.0, "kid": 0.0}))
    edit(made, lambda content: content["draws"][0].update(value=42.0, values={"frechet": 42.0, "kid": 0.25}))
    nothing = "no recorded difference in the environment of measure draw 0 goes with it"
    assert off(made) == {
        "FD (digits features) of draw 0": f"42, recorded is 40: +2, 0.05 of it; {nothing}",
        "kid of draw 0": f"0.25, recorded is 0: +0.25; {nothing}",
    }


def test_what_follows_from_something_else_is_not_explained_twice(made):
    alter_weights(made, lambda weights: weights[sorted(weights)[0]].fill(0))
    alter_samples(made, lambda images: np.full_like(images, 7))
    edit(made, lambda content: content["draws"][0]["values"].update(frechet=42.0))
    found = off(made)
    assert found["model"].endswith("; no recorded difference in the environment of train goes with it")
    assert found["samples of draw 0"].endswith("; follows from the model")
    assert found["FD (digits features) of draw 0"].endswith("; follows from the samples of draw 0")


def diverge(content):
    content["training"].update(status="diverged", reason="the loss was not finite at step 3", model_sha256="1" * 64)
    content["draws"][0].update(
        status="diverged",
        reason="the loss was not finite at step 3",
        value=None,
        values={},
        n=0,
        samples_sha256="1" * 64,
    )


def test_a_cell_that_now_diverges_is_told(made):
    edit(made, diverge)
    found = compared(made)
    words = [each.off.split("; ")[0] for each in found.quantities]
    outcome = "diverged (the loss was not finite at step 3), recorded is finished"
    assert words == [outcome, "0 images, recorded are 48", outcome, outcome]
    assert (found.spread.within, found.spread.words) == (None, "there is no value, because the cell diverged")


def test_a_cell_that_diverges_as_recorded_is_identical(made):
    for folder in (cell_folder(), made):
        edit(folder, diverge)
    assert compared(made).identical
    edit(made, lambda content: content["training"].update(model_sha256="2" * 64))
    assert off(made)["model"].startswith("it diverged as recorded, with other weights")


# --- the environment -----------------------------------------------------------------------------------------------


def test_a_recorded_difference_is_named_beside_what_it_goes_with(made):
    def earlier(content):
        content["environments"][0]["versions"]["torch"] = "2.13.0"
        content["environments"][0]["code"] = {"commit": "c" * 40, "modified": True}
        del content["environments"][0]["versions"]["scipy"]

    edit(cell_folder(), earlier)
    edit(made, lambda content: content["environments"][0]["code"].update(commit="d" * 40, modified=False))
    alter_weights(made, lambda weights: weights[sorted(weights)[0]].fill(0))
    found = compared(made)
    assert found.quantities[0].off.endswith("; train ran in another environment than recorded (below)")
    versions = provenance.versions()
    assert found.environment == [
        f"train, sample draw 0, measure draw 0: torch 2.13.0 → {versions['torch']}, "
        f"commit {'c' * 12} with uncommitted changes → {'d' * 12}, scipy none → {versions['scipy']}"
    ]


def test_stages_that_ran_elsewhere_are_told_apart(made):
    def two_machines(content):
        (one,) = content["environments"]
        other = {**one, "machine": {**one["machine"], "cpu": "another"}, "stages": ["measure draw 0"]}
        content["environments"] = [{**one, "stages": ["train", "sample draw 0"]}, other]

    edit(cell_folder(), two_machines)
    edit(made, lambda content: content["draws"][0]["values"].update(frechet=1.0))
    found = compared(made)
    here = provenance.machine()["cpu"]
    assert found.environment == [f"measure draw 0: cpu another → {here}"]
    assert found.quantities[2].off.endswith("; measure draw 0 ran in another environment than recorded (below)")


def test_device_and_number_of_processes_are_of_the_training(made):
    edit(cell_folder(), lambda content: content["training"].update(device="cuda", processes=4))
    assert compared(made).environment == ["train: device cuda → cpu, processes 4 → 1"]


def test_what_cannot_change_a_number_is_not_a_difference(made):
    def elsewhere(content):
        content["environments"][0]["versions"]["mlflow"] = "0"
        content["environments"][0]["machine"].update(host="elsewhere", cores=64)

    edit(made, elsewhere)
    assert compared(made).environment == []


@pytest.mark.parametrize(("deterministic", "noted"), [(False, True), (True, False)])
def test_a_gpu_that_need_not_repeat_itself_is_noted(made, deterministic, noted):
    def on_a_gpu(content):
        content["environments"][0]["machine"]["gpu"] = "NVIDIA H200"
        content["configuration"]["cell.json"]["training"]["deterministic"] = deterministic

    for folder in (cell_folder(), made):
        edit(folder, on_a_gpu)
    note = "training.deterministic is false, so a GPU does not give the same bits twice"
    assert not any(note in line for line in compared(made).lines())
    edit(made, lambda content: content["draws"][0]["values"].update(frechet=1.0))
    assert any(note in line for line in compared(made).lines()) is noted


# --- the spread ----------------------------------------------------------------------------------------------------


def with_values(*values):
    return [{"draws": [{"sampler": "s", "value": value} for value in np.atleast_1d(each)]} for each in values]


def test_the_spread_is_where_further_seeds_are_expected():
    """The interval holds 95 % of further seeds; the recorded ones alone would hold fewer."""
    random = np.random.default_rng(0)
    inside = 0
    for sample in random.normal(50.0, 2.0, (2000, 4)):
        *recorded, further = with_values(*sample.tolist())
        inside += comparison.spread(recorded[0], further, recorded).within
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_spread_is_told_in_numbers():
    recorded = with_values(40.0, 42.0, 44.0)
    (further,) = with_values(43.0)
    half = stats.t.ppf(0.975, 2) * 2.0 * (4 / 3) ** 0.5
    found = comparison.spread(recorded[1], further, recorded)
    assert found.within is True
    assert found.words == (
        f"43 lies within {42 - half:.6g} to {42 + half:.6g}, where 95 % of further seeds are expected; "
        "the 3 recorded have 40 to 44; it is 0.5 of their standard deviation from its record"
    )
    (far,) = with_values(42 + half + 0.01)
    assert comparison.spread(recorded[1], far, recorded).within is False


def test_draws_are_averaged_within_a_seed():
    recorded = with_values([40.0, 44.0], [41.0, 45.0])
    found = comparison.spread(recorded[0], with_values([42.0, 42.0])[0], recorded)
    assert "the 2 recorded have 42 to 43;" in f"{found.words};"


def test_one_seed_has_no_spread():
    (recorded,) = with_values(40.0)
    found = comparison.spread(recorded, recorded, [recorded])
    assert (found.within, found.words) == (None, "there is one recorded seed, so the scatter of seeds is unknown")


def test_only_comparable_seeds_are_counted(project, monkeypatch):
    """Seed 0 is left out once it is of another configuration."""
    asked = []
    monkeypatch.setattr(chain, "run", lambda study, cell, stop: shutil.copytree(project / cell.folder, cell.folder))
    monkeypatch.setattr(comparison, "compare", lambda recorded, made, seeds: asked.append(seeds))
    again()
    edit(cell_folder(0), lambda content: content["configuration"]["metric.json"].update(implementation="clean-fid"))
    again()
    assert [[each["cell"]["seed"] for each in seeds] for seeds in asked] == [[0, 1], [1]]


# --- what cannot be reproduced -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "short/v-tiny-1", "cell@v-tiny-1", "short@v-tiny-1"])
def test_a_cell_has_the_names_that_dvc_and_the_folders_give_it(project, name):
    study = config.load([Path("config/short.yaml")])
    assert reproduce.find(study, name) == (study, cells.Cell("short", "v", "tiny", 1))


def test_a_study_is_found_by_its_name_or_is_the_one_that_is_loaded(project):
    base = config.load()
    assert reproduce.find(base, "digits@x0-tiny-2")[1] == cells.Cell("digits", "x0", "tiny", 2)
    assert reproduce.find(base, "cell@v-small-1")[1] == cells.Cell("cifar10", "v", "small", 1)
    assert reproduce.find(base, "cifar10@v-small-1") == reproduce.find(base, "cell@v-small-1")


@pytest.mark.parametrize("name", ["v-tiny-1", "nothing@v-tiny-1", "short@v-tiny-9", "short@", "@v-tiny-1", "cell@v"])
def test_a_bad_name_is_one_line(project, monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, name)
    assert left.value.code == errors.EXIT_ERROR
    assert re.fullmatch(r"error: .*(STUDY@CELL|has no cell).*\n", capsys.readouterr().err)


def test_without_a_record_there_is_nothing_to_compare_with(folder, project):
    (folder / "manifest.json").unlink()
    with pytest.raises(
        UserError, match=r"seed1/manifest.json does not exist; only a finished cell can be reproduced"
    ):
        again()
    assert left_behind(project) == []


def other_steps():
    path = Path("config/short.yaml")
    path.write_text(path.read_text().replace("steps: 12", "steps: 13"))


def other_sampling():
    path = Path("config/short.yaml")
    path.write_text(path.read_text().replace("images: 48", "images: 49"))


def other_parameterization():
    path = Path("workflow/parameterizations/v.py")
    path.write_text(f"{path.read_text()}\n# mended\n")


def other_images():
    path = Path("data/digits/manifest.json")
    path.write_text(path.read_text().replace(read_json(path)["splits"]["train"]["sha256"], "0" * 64))


def own_rule():
    edit(cell_folder(), lambda content: content["training"].update(key=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_steps, r"of another configuration: cell.json now says training.steps = 13, recorded is 12"),
        (other_sampling, r"of another configuration: sampling-ddim-4.json now says images = 49, recorded is 48"),
        (other_parameterization, r"parameterizations/v.py is not the file that short@v-tiny-1 was trained with"),
        (other_images, r"data/digits holds other images than short@v-tiny-1 was trained on"),
        (own_rule, r"trained by a rule of your own; only the pipeline's own training"),
    ],
)
def test_what_is_known_to_be_another_cell_is_refused_before_it_costs_a_training(project, change, words, monkeypatch):
    monkeypatch.setattr(chain, "run", lambda *arguments: pytest.fail("a training was started"))
    change()
    with pytest.raises(UserError, match=words) as refusal:
        again()
    assert "\n" not in str(refusal.value)
    assert left_behind(project) == []


# --- the scratch folder --------------------------------------------------------------------------------------------


def stopped():
    stop = Stop()
    stop.reason = "received SIGTERM"
    return stop


@pytest.mark.deep
def test_cut_off_the_same_command_goes_on_and_ends_alike(project, monkeypatch, capsys):
    with pytest.raises(StoppedEarlyError, match="state saved after step 1 of 12"):
        again(stop=stopped())
    (scratch,) = left_behind(project)
    assert str(scratch) in capsys.readouterr().err, "it says where it works"

    with monkeypatch.context() as broken:
        broken.setattr(chain, "sample", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            again()
    said = capsys.readouterr().err
    assert f"going on in {scratch}" in said and "12/12 steps" in said
    assert left_behind(project) == [scratch]

    assert again().identical
    said = capsys.readouterr().err
    assert f"going on in {scratch}" in said and "12/12 steps" not in said, "trained once"
    assert left_behind(project) == []


@pytest.mark.deep
@pytest.mark.parametrize("what", ["record", "code"])
def test_what_was_left_of_something_else_is_not_gone_on_with(project, monkeypatch, what):
    with pytest.raises(StoppedEarlyError):
        again(stop=stopped())
    (scratch,) = left_behind(project)
    if what == "record":
        edit(cell_folder(), lambda content: content["seconds"].update(train=1.0))
    else:
        monkeypatch.setattr(reproduce.provenance, "code_sha256", lambda: "0" * 64)
    (scratch / "results/leftover").touch()
    with pytest.raises(StoppedEarlyError):
        again(stop=stopped())
    assert left_behind(project) == [scratch] and not (scratch / "results/leftover").exists()
    assert (project / "data/digits/dataset.npz").exists(), "a link to the data was removed, not the data"


def test_kept_it_lies_where_it_was_asked_for(project, capsys):
    kept = project.parent / "some/where"
    assert again(keep=kept).identical
    assert sha256_of_file(kept / cell_folder() / "model.safetensors") == sha256_of_file(
        cell_folder() / "model.safetensors"
    )
    assert left_behind(project) == []
    capsys.readouterr()
    assert again(keep=kept).identical
    assert f"going on in {kept}" in capsys.readouterr().err


def test_what_is_made_is_of_the_projects_commit_though_its_folder_is_under_no_git(project):
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
    ):
        subprocess.run(["git", *command], check=True)
    provenance.environment.cache_clear()
    kept = project.parent / "kept"
    try:
        assert again(keep=kept).identical
        made = manifest.read(kept / cell_folder())["environments"][0]["code"]
        assert made == provenance.code() and re.fullmatch("[0-9a-f]{40}", made["commit"])
    finally:
        provenance.environment.cache_clear()


def test_a_folder_with_something_else_is_left_alone(project):
    kept = project.parent / "mine"
    kept.mkdir()
    (kept / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something other than a reproduction of this cell; name a new folder"):
        again(keep=kept)
    assert (kept / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file; a folder is needed"):
        again(keep=kept / "thesis.tex")


def test_two_at_once_do_not_share_a_folder(project):
    kept = project.parent / "kept"
    kept.mkdir()
    with (kept / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another process reproduces the same cell in .*kept; wait for it"):
            again(keep=kept)


def test_a_temporary_folder_of_somebody_else_is_not_emptied(project, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    scratch = project.parent / "tmp" / reproduce._temporary(cells.Cell("short", "v", "tiny", 1)).name
    scratch.mkdir()
    (scratch / "theirs").touch()
    with pytest.raises(UserError, match="belongs to another user; name a folder of your own with --keep"):
        again()
    assert (scratch / "theirs").exists()
