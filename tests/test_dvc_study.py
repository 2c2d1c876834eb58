"""Snakemake and DVC on one study, for real: what is recorded, what is out of date, and what comes back after a loss.

The demo, cut down to two cells, is run once; every test works on a copy of it, its cache and its remote.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import copy_working_tree

from targetwise.errors import UserError
from targetwise.recipe import config
from targetwise.versioning import restore

pytestmark = pytest.mark.deep

STUDY = ["--configfile", "config/digits.yaml"]
CELLS = ["epsilon-tiny-1", "v-tiny-1"]
V = Path("results/digits/v/tiny/seed1")
MODEL = V / "model.safetensors"
SMALL = [
    ("config.yaml", r"parameterizations: \[.*\]", "parameterizations: [epsilon, v]"),
    ("config.yaml", r"seeds: \[.*\]", "seeds: [1]"),
    ("config/digits.yaml", r"width: .*", "width: 16, layers: 1}"),
    ("config/digits.yaml", r"steps: \d+", "steps: 12"),
    ("config/digits.yaml", r"images: \d+", "images: 48"),
    ("config/digits.yaml", r"bounds: true", "bounds: false"),
]

#: An ordinary user may not write what is read-only; root may, unless it gives that up.
ORDINARY = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--ambient-caps=-all"] if os.geteuid() == 0 else []


def run(project, *command, code=0):
    """Run a command in the project and return all that it says."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
    for name in ("MLFLOW_TRACKING_URI", "SNAKEMAKE_PROFILE"):
        environment.pop(name, None)
    done = subprocess.run(
        command,
        cwd=project,
        env=environment,
        text=True,
        timeout=600,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == code, done.stdout[-4000:]
    return done.stdout


def git(project, *arguments):
    return run(project, "git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments)


def planned(project):
    """Return how many jobs of each rule a run would start."""
    said = run(project, "snakemake", "-n", *STUDY, "--", "all")
    if "Nothing to be done" in said:
        return {}
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", said.split("Job stats:")[1], re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all")}


def out_of_date(project):
    """Return the cells that DVC calls out of date, of those that it has recorded."""
    return re.findall(r"^digits@(.*):$", run(project, "dvc", "status", "digits"), re.MULTILINE)


def recorded_files(project):
    """Return the content of every file that DVC keeps; it holds times, so a cell made again differs."""
    kept = re.findall(r"path: (results/\S+)", (project / "dvc.lock").read_text())
    assert len(kept) == 6 * len(CELLS)
    return {path: (project / path).read_bytes() for path in kept}


def edit(project, name, before, after):
    text = (project / name).read_text()
    assert len(re.findall(before, text)) == 1, before
    (project / name).write_text(re.sub(before, after, text))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished study, committed to git and pushed to a DVC remote beside it."""
    folder = tmp_path_factory.mktemp("finished")
    project = folder / "project"
    copy_working_tree(project)
    for change in SMALL:
        edit(project, *change)
    run(project, "targetwise", "stages", *STUDY)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "t")
    said = run(project, "snakemake", "--cores", "2", *STUDY, "--", "all")
    assert "DVC keeps 2 cells; commit dvc.lock, the record of what it keeps, with the result" in said
    assert git(project, "status", "--porcelain").split() == ["??", "dvc.lock"]
    run(project, "dvc", "remote", "add", "--default", "shared", "../remote")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "result")
    run(project, "dvc", "push")
    return folder


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished study's project, with its remote beside it; hard links stay."""
    subprocess.run(["cp", "-a", f"{finished}/.", str(tmp_path)], check=True)
    return tmp_path / "project"


def test_a_finished_cell_is_up_to_date_for_both(project):
    assert planned(project) == {}
    assert "up to date" in run(project, "dvc", "status", "digits")
    before = {path: path.stat().st_mtime_ns for path in project.rglob("results/**/*") if path.is_file()}
    assert "Stage 'digits@v-tiny-1' didn't change, skipping" in run(project, "dvc", "repro", "digits@v-tiny-1")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert git(project, "status", "--porcelain") == ""


def test_a_computed_cell_without_a_record_is_recorded_and_not_made_again(project):
    files = recorded_files(project)
    (project / "dvc.lock").unlink()
    run(project, "dvc", "repro", "digits@v-tiny-1")
    assert "digits@v-tiny-1" in (project / "dvc.lock").read_text()
    assert {path: (project / path).read_bytes() for path in files} == files
    assert planned(project) == {}


def test_a_cell_that_fails_does_not_keep_the_finished_ones_from_being_recorded(project):
    (project / "dvc.lock").unlink()
    path = project / "workflow/parameterizations/v.py"
    training_only = 'import sys\n\nif sys.argv[0].endswith("train.py"):\n    raise RuntimeError("not today")\n'
    path.write_text(f"{path.read_text()}\n{training_only}")
    said = run(project, "snakemake", "--cores", "2", "--keep-going", *STUDY, "--", "all", code=1)
    assert "DVC keeps 1 cell; commit dvc.lock, the record of what it keeps, with the result" in said
    assert "not versioned: v-tiny-1: not finished" in said
    assert re.findall("digits@[a-z0-9-]+", (project / "dvc.lock").read_text()) == ["digits@epsilon-tiny-1"]
    git(project, "checkout", "-q", str(path.relative_to(project)))
    assert planned(project)["version"] == 1, "the step itself is still to be done"
    run(project, "snakemake", "--cores", "2", *STUDY, "--", "all")
    assert len(re.findall("digits@[a-z0-9-]+", (project / "dvc.lock").read_text())) == 2


def test_a_changed_weighting_puts_exactly_its_cells_out_of_date_in_both(project):
    edit(project, "config.yaml", r"v: \{target: v\}", "v: {target: v, weighting: snr}")
    assert out_of_date(project) == ["v-tiny-1"]
    jobs = planned(project)
    assert {rule: jobs[rule] for rule in ("train", "sample", "fid")} == {"train": 1, "sample": 1, "fid": 1}
    git(project, "checkout", "-q", "config.yaml")
    assert out_of_date(project) == [] and planned(project) == {}


@pytest.mark.parametrize(
    "lost", ["records", pytest.param("results", marks=pytest.mark.slow), "everything but git and the remote"]
)
def test_restore_brings_everything_back_and_nothing_reruns(project, lost):
    files = recorded_files(project)
    if lost == "everything but git and the remote":
        project.rename(project.with_name("old"))
        git(project.parent, "clone", "-q", "old", "project")
        shutil.rmtree(project.with_name("old"))
    else:
        for name in [".snakemake", "mlruns"] + (["results", "data"] if lost == "results" else []):
            shutil.rmtree(project / name, ignore_errors=True)
        (project / "mlflow.db").unlink()
    said = run(project, "targetwise", "restore")
    assert f"digits: 2 cells are whole; {0 if lost == 'records' else 12} files were put in place" in said
    assert {path: (project / path).read_bytes() for path in files} == files
    assert planned(project) == {}
    assert "up to date" in run(project, "dvc", "status", "digits")
    assert "0 imported, 2 unchanged" in run(project, "targetwise", "track", *STUDY)
    assert git(project, "status", "--porcelain") == ""


def kept(project, path, place=".dvc/cache"):
    """Return what DVC keeps of a file of the results, in its cache or in the remote."""
    digest = hashlib.md5((project / path).read_bytes()).hexdigest()
    return project / place / "files/md5" / digest[:2] / digest[2:]


def damage(path):
    """Change a byte in place, date and length kept, as a bad disk does."""
    stamp = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-10, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.fixture
def restored(project, monkeypatch):
    """Restore without the runs of Snakemake around it, and return what became of the study."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(restore, "_snakemake", lambda *arguments: None)
    return lambda: restore.restore(config.load([Path("config/digits.yaml")]))


def test_a_lost_object_is_put_back_from_the_results(project, restored):
    lost = kept(project, MODEL)
    lost.unlink()
    outcome = restored()
    assert outcome.whole == CELLS and outcome.lost == []
    assert lost.samefile(project / MODEL)


@pytest.mark.parametrize("whole", [True, False])
def test_damage_in_the_cache_and_the_results_is_healed_by_a_whole_remote_only(project, restored, whole):
    """They are one file under two names, so bad bytes in one are bad bytes in both, and no date tells."""
    good, remote = (project / MODEL).read_bytes(), kept(project, MODEL, "../remote")
    digest = remote.parent.name + remote.name
    damage(project / MODEL)
    if not whole:
        damage(remote)
    outcome = restored()
    assert f"damaged in DVC's cache: {MODEL}, MD5 {digest}" in outcome.notes
    if whole:
        assert (outcome.whole, outcome.lost) == (CELLS, [])
        assert (project / MODEL).read_bytes() == good
    else:
        assert (outcome.whole, outcome.lost) == (CELLS[:1], [MODEL])
        assert f"damaged in DVC's remote: {MODEL}, MD5 {digest}" in outcome.notes
        assert planned(project)["train"] == 1


def test_a_half_pushed_remote_is_named_and_the_rest_comes_back(project, restored):
    samples = V / "samples/ddim-50/draw0.npz"
    remote = kept(project, samples, "../remote")
    remote.unlink()
    for name in ("results", ".dvc/cache"):
        shutil.rmtree(project / name)
    run(project, "snakemake", "-n", *STUDY, "--", "all")  # writes the specifications
    outcome = restored()
    assert (outcome.whole, outcome.lost) == (CELLS[:1], [samples])
    assert f"not in DVC's remote: {samples}, MD5 {remote.parent.name}{remote.name}" in outcome.notes
    assert (project / MODEL).exists() and not (project / samples).exists()


def test_a_record_of_another_configuration_is_not_put_in_place(project, restored):
    edit(project, "config.yaml", r"v: \{target: v\}", "v: {target: v, weighting: snr}")
    shutil.rmtree(project / "results/digits/v")
    with pytest.raises(UserError, match=r"`targetwise stages --configfile config/digits.yaml` writes it again"):
        restored()  # dvc.yaml does not watch the weighting yet
    run(project, "targetwise", "stages", *STUDY)
    outcome = restored()
    assert (outcome.whole, outcome.outdated, outcome.lost) == (CELLS[:1], CELLS[1:], [])
    assert not (project / MODEL).exists()


def test_what_nobody_has_any_more_is_named_and_the_next_run_makes_it_again(project):
    files = recorded_files(project)
    kept(project, MODEL).unlink()
    (project / MODEL).unlink()
    run(project, "dvc", "remote", "remove", "shared")
    said = run(project, "targetwise", "restore", code=1)
    assert f"not in DVC's cache: {MODEL}, MD5 " in said and "DVC has no remote" in said
    assert "error: 1 recorded file is lost; the next run makes what is lost again" in said
    assert "Traceback" not in said
    run(project, "snakemake", "--cores", "2", *STUDY, "--", "all")
    changed = {path for path, content in files.items() if (project / path).read_bytes() != content}
    assert changed and all(Path(path).is_relative_to(V) for path in changed)
    assert "up to date" in run(project, "dvc", "status", "digits") and planned(project) == {}


@pytest.mark.skipif(bool(ORDINARY) and not shutil.which("setpriv"), reason="root, and no setpriv to be less with")
def test_an_ordinary_user_makes_a_recorded_cell_again_and_the_old_one_stays_kept(project):
    old, digest = kept(project, MODEL), hashlib.sha256((project / MODEL).read_bytes()).hexdigest()
    assert (project / MODEL).stat().st_mode & 0o222 == 0 and old.samefile(project / MODEL)
    edit(project, "config.yaml", r"v: \{target: v\}", "v: {target: v, weighting: snr}")
    assert run(project, *ORDINARY, "sh", "-c", f"test -w {MODEL} || echo read-only") == "read-only\n"
    run(project, *ORDINARY, "dvc", "repro", "digits@v-tiny-1")
    assert hashlib.sha256((project / MODEL).read_bytes()).hexdigest() != digest
    assert hashlib.sha256(old.read_bytes()).hexdigest() == digest
    assert out_of_date(project) == []


def test_dvc_never_records_files_of_another_configuration(project):
    """Whoever touches old results makes Snakemake believe in them."""
    before = (project / "dvc.lock").read_text()
    edit(project, "config.yaml", r"v: \{target: v\}", "v: {target: v, weighting: snr}")
    run(project, "snakemake", "--touch", "--cores", "1", *STUDY, "--", "all")
    said = run(project, "dvc", "repro", "digits@v-tiny-1", code=255)
    assert f"error: {V}/training.json is of another configuration, parameterization, data set or model" in said
    assert (project / "dvc.lock").read_text() == before


def test_without_a_repository_the_step_is_skipped_and_made_up_for_when_there_is_one(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    (project / "dvc.lock").unlink()
    (project / ".git").rename(project.parent / "git")
    step = ["snakemake", "--cores", "1", *STUDY, "--", "results/digits/versioned.json"]
    assert "not versioned: DVC needs a git repository, and there is none here" in run(project, *step)
    assert not (project / "dvc.lock").exists()
    assert planned(project) == {}
    (project.parent / "git").rename(project / ".git")
    assert planned(project) == {"version": 1}
    assert "DVC keeps 2 cells" in run(project, *step)
    assert git(project, "status", "--porcelain") == ""
