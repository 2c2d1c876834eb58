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

from targetwise import cells, config
from targetwise.errors import UserError
from targetwise.versioning import dvc, restore, stages
from targetwise.versioning.agreement import Agreement, parts
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


def test_stages_are_read_as_dvc_reads_them(versioned):
    from dvc.repo import Repo

    def name(path):
        return Path(path).relative_to(versioned)

    with Repo(str(versioned)) as repository:
        found = {stage.name: stage for stage in repository.index.stages}
    for group in stages.groups():
        for stage in group.stages.values():
            dvcs = found.pop(stage.name)
            assert {name(out.fs_path) for out in dvcs.outs} == stage.files
            watched = {}
            for dependency in dvcs.deps:
                if dependency.hash_name == "md5":
                    assert name(dependency.fs_path) in stage.sources
                else:
                    watched[name(dependency.fs_path)] = set(dependency.params)
            assert watched == {path: set(keys) for path, keys in stage.options.items()}
    assert not found


@pytest.mark.parametrize("name", GROUPS)
def test_a_stage_asks_for_its_cells_files_only_and_holds_them_against_the_configuration(versioned, name):
    """Its own files, never `all`: that would end in a commit inside of DVC."""
    from dvc.repo import Repo

    with Repo(str(versioned)) as repository:
        found = {stage.name: stage.cmd for stage in repository.index.stages}
    study = config.load(GROUPS[name])
    for cell in cells.grid(study):
        run, check = found[f"{name}@{cell.name}"]
        options, targets = run.split(" -- ")
        assert options.split() == ["snakemake", "--cores", "all"] + (
            ["--configfile", *map(str, GROUPS[name])] if GROUPS[name] else []
        )
        assert set(map(Path, targets.split())) == group(name).stages[cell.name].files
        assert check == (
            f"python workflow/scripts/version.py --study results/{study['study']}/study.json --check {cell.name}"
        )


@pytest.mark.parametrize("name", GROUPS)
def test_every_out_stays_where_it_is_and_rows_are_metrics(versioned, name):
    definition = yaml.safe_load((versioned / "dvc.yaml").read_text())["stages"][name]
    for entry in [*definition["outs"], *definition["metrics"]]:
        assert list(entry.values()) == [{"persist": True}]
    assert all("/fid/" in path for entry in definition["metrics"] for path in entry)
    assert not any("/fid/" in path for entry in definition["outs"] for path in entry)


@pytest.mark.parametrize("name", GROUPS)
def test_dvc_keeps_every_part_of_every_cell(versioned, name):
    found = group(name)
    for cell in cells.grid(found.config):
        assert stages.stage_of(found, cell).files == {
            path for part in parts(found.config, cell) for path in part.files
        }


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
    return [
        specifications[path] for path in (cell.folder / "cell.json", study / "sampling.json", study / "metric.json")
    ]


@pytest.mark.parametrize("name", GROUPS)
def test_exactly_what_decides_a_result_puts_its_stage_out_of_date(project, name):
    """Every value of every configuration file, one after the other: the specification changes where DVC sees it."""
    shutil.copy(ROOT / "dvc.yaml", project)
    found = group(name)
    cell = cells.grid(found.config)[1]
    stage = found.stages[cell.name]
    before = deciding(found, found.contents, cell)
    tried = 0
    for file, content in found.contents.items():
        for path in leaves(content):
            if path[0] in ("study", "grid"):
                continue  # another cell
            decides = deciding(found, {**found.contents, file: with_another(content, path)}, cell) != before
            watched = any(f"{'.'.join(path)}.".startswith(f"{key}.") for key in stage.options[file])
            if path == ("training", "save_every_seconds") and file != config.BASE:
                assert watched and not decides  # the one exception: DVC watches the overlay's section as a whole
                continue
            assert decides == watched, (file, path)
            tried += decides
    assert tried > 20


def test_the_protocol_number_is_watched(project):
    shutil.copy(ROOT / "dvc.yaml", project)
    for found in stages.groups():
        assert all(stage.options[Path("src/targetwise/cells.py")] == ("PROTOCOL",) for stage in found.stages.values())


# --- what is not versioned, and why


def test_a_study_without_stages_is_told_where_to_write_them(versioned):
    study = config.load([Path("config/reference.yaml")])
    with pytest.raises(NotVersionedError, match=r"dvc.yaml has no stages for study reference \(docs/dvc.md"):
        stages.group_of(study)


def test_another_configuration_of_a_study_is_not_recorded_under_its_name(versioned, study):
    study["training"]["steps"] += 1
    with pytest.raises(NotVersionedError, match=r"not the configuration of config.yaml and config/digits.yaml"):
        stages.group_of(study)
    assert dvc.commit(study)["stages"] == {}


def test_a_cell_that_the_matrix_leaves_out_is_named(versioned):
    edit(versioned / "dvc.yaml", "scale: [tiny]", "scale: [other]")
    scale = "{channels: [32], attention: [], layers_per_block: 1}"
    edit(versioned / "config/digits.yaml", "\nscales:", f"\nscales:\n  other: {scale}")
    found = group()
    with pytest.raises(NotVersionedError, match="the lists of digits leave out cells"):
        stages.stage_of(found, cells.grid(found.config)[0])


def test_a_file_that_the_stage_lacks_is_named(versioned):
    edit(versioned / "config/digits.yaml", "draws: 1", "draws: 2")
    found = group()
    with pytest.raises(NotVersionedError, match=r"digits does not list results/digits/.*/draw1.json"):
        stages.stage_of(found, cells.grid(found.config)[0])


def test_a_parameterization_that_the_configuration_does_not_define_is_named(versioned):
    """Fine for Snakemake, which needs no entry; DVC cannot watch what is not there."""
    edit(versioned / "config/digits.yaml", "v: {}, ", "")
    found = group()
    with pytest.raises(NotVersionedError, match=r"DVC watches parameterizations.v in config/digits.yaml"):
        stages.stage_of(found, cells.find(found.config, "v-tiny-1"))
    assert stages.stage_of(found, cells.find(found.config, "x0-tiny-1"))


def test_a_variant_without_a_file_of_its_name_is_named(versioned):
    edit(versioned / "config.yaml", "[epsilon, v, x0]", "[epsilon, v, x0_snr]")
    found = group("cell")
    with pytest.raises(NotVersionedError, match=r"DVC watches workflow/parameterizations/x0_snr.py, which does not"):
        stages.stage_of(found, cells.find(found.config, "x0_snr-small-1"))


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
    with pytest.raises(UserError, match=r"^dvc.lock is damaged, or holds the marks of a merge"):
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
