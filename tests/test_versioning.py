"""What DVC is told: dvc.yaml against the project's own cells, what is recorded, and what is kept under a digest."""

import copy
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from targetwise import cells
from targetwise.cells.agreement import Agreement
from targetwise.errors import UserError
from targetwise.recipe import config
from targetwise.recipe.schema import read_yaml
from targetwise.versioning import dvc, restore, stages
from targetwise.versioning.dvc import Cache
from targetwise.versioning.stages import NotVersionedError

GROUPS = {"cell": [], "digits": [Path("config/digits.yaml")]}


@pytest.fixture
def versioned(project):
    """The project under git and DVC, with nothing recorded."""
    shutil.copy(ROOT / "dvc.yaml", project)
    (project / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", project / ".dvc")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    return project


def group(name="digits"):
    return next(group for group in stages.groups() if group.name == name)


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("package", ["dvc", "snakemake"])
def test_restoring_without_a_package_says_how_to_get_it(versioned, monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=rf"^the package '{package}' is missing; run `make setup`, then"):
        restore.restore(config.load())


# --- dvc.yaml


def test_dvc_lists_the_projects_own_cells(versioned):
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    done = subprocess.run(command, cwd=versioned, capture_output=True, text=True, check=True)
    own = [f"{name}@{cell.name}" for name, files in GROUPS.items() for cell in cells.grid(config.load(files))]
    assert sorted(done.stdout.split()) == sorted(own)
    assert {"cell@v-small-1", "digits@v-tiny-1"} <= set(own)


def dvcs_stages(project):
    """Return DVC's own reading of dvc.yaml: by stage, its command, files and what it watches by file."""
    from dvc.repo import Repo

    def name(path):
        return Path(path).relative_to(project)

    with Repo(str(project)) as repository:
        stages_ = repository.index.stages
    found = {}
    for stage in stages_:
        watched = {name(each.fs_path): set(each.params) for each in stage.deps if each.hash_name != "md5"}
        sources = {name(each.fs_path) for each in stage.deps if each.hash_name == "md5"}
        found[stage.name] = stage.cmd, {name(out.fs_path) for out in stage.outs}, sources, watched
    return found


def test_dvc_keeps_the_files_that_we_say_it_keeps(versioned):
    found = dvcs_stages(versioned)
    for each in stages.groups():
        for stage in each.stages.values():
            assert found.pop(stage.name)[1] == stage.files
    assert not found


def test_what_is_committed_is_what_the_command_writes(versioned):
    committed = (versioned / "dvc.yaml").read_text()
    for name, files in GROUPS.items():
        assert stages.write(config.load(files), files) == name
    assert (versioned / "dvc.yaml").read_text() == committed


@pytest.mark.parametrize("name", GROUPS)
def test_a_stage_asks_for_its_cells_files_only_and_holds_them_against_the_configuration(versioned, name):
    """Its own files, never `all`: that would end in a commit inside of DVC."""
    found = dvcs_stages(versioned)
    study = config.load(GROUPS[name])
    for cell in cells.grid(study):
        (run, check), files, *_ = found[f"{name}@{cell.name}"]
        options, targets = run.split(" -- ")
        assert options.split() == ["snakemake", "--cores", "all"] + (
            ["--configfile", *map(str, GROUPS[name])] if GROUPS[name] else []
        )
        assert set(map(Path, targets.split())) == files
        assert check == (
            f"python workflow/scripts/version.py --study results/{study['study']}/study.json --check {cell.name}"
        )


@pytest.mark.parametrize("name", GROUPS)
def test_every_out_stays_where_it_is_and_rows_are_metrics(versioned, name):
    definition = yaml.safe_load((versioned / "dvc.yaml").read_text())["stages"][name]["do"]
    for entry in [*definition["outs"], *definition["metrics"]]:
        assert list(entry.values()) == [{"persist": True}]
    assert all("/fid/" in path for entry in definition["metrics"] for path in entry)
    assert not any("/fid/" in path for entry in definition["outs"] for path in entry)


def leaves(content, at=()):
    """Yield the path of every value that is no mapping."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key)


def with_another(content, path):
    """Return ``content`` with another value at ``path``."""
    changed = copy.deepcopy(content)
    *above, last = path
    place = changed
    for key in above:
        place = place[key]
    value = place[last]
    if path == ("data", "dataset"):
        place[last] = {"digits": "cifar10", "cifar10": "digits"}[value]
    elif isinstance(value, bool):
        place[last] = not value
    elif isinstance(value, int | float):
        place[last] = value + 1
    else:
        place[last] = f"another {value}"
    return changed


def deciding(found, contents, cell):
    """Return what the specifications say of a cell's result when the configuration files hold ``contents``."""
    layers = [contents[path] for path in (config.BASE, *found.overlays)]
    merged = layers[0]
    for layer in layers[1:]:
        merged = config.merge(merged, layer)
    specifications, study = cells.specifications(merged), cells.RESULTS / merged["study"]
    sampling = cells.sampling_file(
        study, cell.parameterization, cells.draws(merged, cell.parameterization)[0].sampler
    )
    return [
        sampling.name,
        *(specifications[path] for path in (cell.folder / "cell.json", sampling, study / "metric.json")),
    ]


@pytest.mark.parametrize("name", GROUPS)
def test_exactly_what_decides_a_result_puts_its_stage_out_of_date(versioned, name):
    """Every value of every configuration file, one after the other: the specification changes where DVC sees it."""
    found = group(name)
    cell = cells.grid(found.config)[1]
    watched_by_file = dvcs_stages(versioned)[f"{name}@{cell.name}"][3]
    contents = {path: read_yaml(path) for path in (config.BASE, *found.overlays)}
    before = deciding(found, contents, cell)
    tried = 0
    for file, content in contents.items():
        for path in leaves(content):
            if path[0] in ("study", "grid"):
                continue  # another cell
            decides = deciding(found, {**contents, file: with_another(content, path)}, cell) != before
            watched = any(f"{'.'.join(path)}.".startswith(f"{key}.") for key in watched_by_file[file])
            assert decides == watched, (file, path)
            tried += decides
    assert tried > 10


def test_the_protocol_numbers_are_watched(versioned):
    for _, _, _, watched in dvcs_stages(versioned).values():
        assert watched[Path("src/targetwise/cells/specification.py")] == {"PROTOCOL"}


ANY_STUDY = """
study: mine
grid: {parameterizations: [v, x0_snr, x0_in_v, lr], seeds: [0], samplings: [few, many]}
parameterizations:
  lr: {target: x0, each: {training.learning_rate: [1.0e-4, 2.0e-4]}}
samplings: {few: {steps: 10}, many: {steps: 20}}
"""


def test_any_study_that_can_be_run_is_versioned_by_one_command(versioned):
    """Names without an entry, variants of other files, sweeps and named samplings, each watched where it is set."""
    (versioned / "config/mine.yaml").write_text(ANY_STUDY)
    files = [Path("config/digits.yaml"), Path("config/mine.yaml")]
    study = config.load(files)
    with pytest.raises(NotVersionedError, match=r"dvc.yaml has no stages for study mine; `targetwise stages`"):
        stages.group_of(study)
    assert stages.write(study, files) == "mine"
    own = stages.group_of(study)
    found = dvcs_stages(versioned)
    assert {f"mine@{cell.name}" for cell in cells.grid(study)} < found.keys()
    assert {"mine@lr_0p0001-tiny-0", "mine@x0_in_v-tiny-0", "cell@v-small-1"} < found.keys()
    _, kept, sources, watched = found["mine@x0_in_v-tiny-0"]
    assert kept == own.stages["x0_in_v-tiny-0"].files and len(kept) == 3 + 2 * 3
    assert {Path(f"workflow/parameterizations/{name}.py") for name in ("x0", "v")} <= sources
    assert "parameterizations.x0_in_v" in watched[config.BASE]
    assert "parameterizations.lr" in found["mine@lr_0p0002-tiny-0"][3][files[1]]
    assert {"samplings.few.steps", "samplings.many.steps"} <= watched[files[1]]
    assert not any(field.startswith("samplings") for field in {*watched[config.BASE], *watched[files[0]]})
    assert "training.steps" in watched[files[0]] and "training.steps" not in watched[config.BASE]


# --- what is not versioned, and why


def test_a_study_without_stages_is_told_where_to_write_them(versioned):
    study = config.load([Path("config/reference.yaml")])
    with pytest.raises(NotVersionedError, match=r"dvc.yaml has no stages for study reference; `targetwise stages`"):
        stages.group_of(study)


def test_another_configuration_of_a_study_is_not_recorded_under_its_name(versioned, study):
    study["training"]["steps"] += 1
    with pytest.raises(NotVersionedError, match=r"not the configuration of config.yaml and config/digits.yaml"):
        stages.group_of(study)
    assert dvc.commit(study)["stages"] == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [("draws: 1", "draws: 2"), ("scales: [tiny]", "scales: [tiny, small]"), ("horizontal_flip: false", "")],
    ids=["draws", "cells", "fields"],
)
def test_an_edit_that_asks_for_other_stages_names_the_command_that_writes_them(versioned, before, after):
    edit(versioned / "config/digits.yaml", before, after)
    with pytest.raises(
        NotVersionedError,
        match=r"written for other cells .*`targetwise stages --configfile config/digits.yaml` writes",
    ):
        stages.group_of(config.load(GROUPS["digits"]))
    stages.write(config.load(GROUPS["digits"]), GROUPS["digits"])
    assert stages.group_of(config.load(GROUPS["digits"]))


def test_cells_of_differing_numbers_of_draws_are_refused(versioned, study):
    study["parameterizations"]["v"] = {"sampling": {"draws": 3}}
    with pytest.raises(UserError, match="DVC needs the same number of draws for every cell"):
        stages.write(config.validate(study), GROUPS["digits"])


def test_without_a_repository_the_step_is_skipped_with_one_line(versioned, study, monkeypatch):
    shutil.rmtree(versioned / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(versioned.parent))
    lines = dvc.summary(dvc.commit(study))
    assert lines == ["not versioned: DVC needs a git repository, and there is none here"]
    assert not dvc.LOCK.exists()


def test_without_git_and_where_git_ignores_the_record_there_is_no_repository(versioned, monkeypatch):
    assert dvc.in_repository()
    (versioned / ".gitignore").write_text("dvc.lock\n")
    assert not dvc.in_repository()
    (versioned / ".gitignore").unlink()
    monkeypatch.setenv("PATH", str(versioned))
    assert not dvc.in_repository()


def test_what_was_left_out_is_told_beside_what_was_kept():
    record = {"stages": {"digits@v-tiny-1": {}}, "left_out": {"no stage": ["x0-tiny-0", "x0-tiny-1"]}}
    kept, left_out = dvc.summary(record)
    assert kept.startswith("DVC keeps 1 cell; commit dvc.lock")
    assert left_out == "not versioned: x0-tiny-0, x0-tiny-1: no stage"


# --- dvc.lock


@pytest.fixture
def locked(versioned):
    """A project whose dvc.lock records one cell."""
    path = cells.find(config.load(GROUPS["digits"]), "v-tiny-1").folder / "model.safetensors"
    entry = {"cmd": "snakemake", "outs": [{"path": str(path), "md5": "0" * 32}]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"digits@v-tiny-1": entry}}))
    return path


def test_what_is_recorded_is_read_by_cell(locked):
    assert dvc.recorded(group()) == {"v-tiny-1": {locked: "0" * 32}}
    assert dvc.recorded(group("cell")) == {}
    assert [study["study"] for study in restore.recorded_studies()] == ["digits"]


def test_nothing_is_recorded_before_the_first_run(versioned):
    assert dvc.recorded(group()) == {}
    with pytest.raises(UserError, match=r"dvc.lock records no result"):
        restore.recorded_studies()
    with pytest.raises(UserError, match=r"dvc.lock records no cell of study digits"):
        restore.restore(group().config)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: re.sub("(    outs:\n)", r"<<<<<<< HEAD\n\1=======\n\1>>>>>>> theirs\n", text),
        lambda text: text.replace("md5: ", "sha: "),
        lambda text: text.replace("stages:", "stage:"),
        lambda text: "",
        lambda text: text.encode() + b"\xff",
    ],
    ids=["merge", "no digest", "no stages", "empty", "not text"],
)
def test_a_damaged_record_is_one_line(locked, damage):
    damaged = damage(Path("dvc.lock").read_text())
    Path("dvc.lock").write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(UserError, match=r"^dvc.lock is damaged, or holds merge markers"):
        dvc.recorded(group())


def test_a_run_under_way_is_left_alone(locked):
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").write_text("")
    with pytest.raises(UserError, match="a run is under way here"):
        restore.restore(group().config)


def test_dvcs_own_words_reach_the_person(versioned, study, monkeypatch):
    """A commit whose dvc.lock is damaged must not pass for one that worked."""
    monkeypatch.setattr(Agreement, "require", lambda self, cell: None)
    monkeypatch.setattr(dvc, "_digests", lambda stage: {})
    Path("dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages:\n")
    with pytest.raises(UserError, match=r"^dvc commit: './dvc.lock' is invalid \(possible merge conflicts\)"):
        dvc.commit(study)


# --- the cache


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def cache(versioned):
    return Cache()


def kept(cache, content):
    path = cache.path(md5(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_cache_is_believed_by_its_bytes_only(cache):
    path = kept(cache, b"weights")
    assert cache.holds(md5(b"weights")) and not cache.holds(md5(b"other"))
    stamp = path.stat()
    path.write_bytes(b"WEIGHTS")  # of the same length
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not cache.holds(md5(b"weights"))
    assert cache.discard(md5(b"weights")) and not path.exists()
    assert not cache.discard(md5(b"weights"))


def test_what_is_put_in_place_is_the_same_file_and_replaces_what_lay_there(cache):
    path = kept(cache, b"weights")
    target = Path("results/model.safetensors")
    target.parent.mkdir()
    target.write_bytes(b"other")
    cache.put_in_place(target, md5(b"weights"))
    assert target.samefile(path) and path.read_bytes() == b"weights"
    path.unlink()
    cache.put_back(target, md5(b"weights"))
    assert target.samefile(path)


def test_across_file_systems_it_is_a_copy(cache, monkeypatch):
    def refuse(*_paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = kept(cache, b"weights")
    cache.put_in_place(Path("model.safetensors"), md5(b"weights"))
    assert Path("model.safetensors").read_bytes() == b"weights"
    assert not Path("model.safetensors").samefile(path)


# --- restoring


def test_restoring_makes_what_cells_need_beside_their_own_files_first(study):
    """Made later, the ends of the scale would put restored cells out of date."""
    study["bounds"] = True
    needed = set(map(str, restore._needed_beside_cells(study)))
    assert {f"results/digits/{name}/check.json" for name in study["grid"]["parameterizations"]} < needed
    assert {"results/digits/floor.json", "results/digits/v/tiny/ceiling.json"} < needed
