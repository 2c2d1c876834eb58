"""What is written down of where a number was made: versions, machine, commit."""

import os
import subprocess
from importlib.metadata import version

import pytest
import torch

from targetwise import provenance
from targetwise.files import canonical_json


def git(folder, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "t")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A project under git with everything committed; the test runs in it."""
    for name in ("config.yaml", "dvc.lock", "train.py"):
        (tmp_path / name).write_text("as committed\n")
    git(tmp_path, "init", "-q")
    commit_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_clean_tree_is_its_commit(repository):
    assert provenance.code() == {"commit": git(repository, "rev-parse", "HEAD"), "modified": False}


@pytest.mark.parametrize("staged", [False, True])
def test_an_edit_counts_staged_or_not(repository, staged):
    (repository / "train.py").write_text("edited\n")
    if staged:
        git(repository, "add", "train.py")
    assert provenance.code()["modified"] is True


def test_a_deleted_file_counts(repository):
    (repository / "train.py").unlink()
    assert provenance.code()["modified"] is True


def test_what_a_run_itself_changes_does_not_count(repository):
    (repository / "dvc.lock").write_text("outs of this run\n")
    assert provenance.code()["modified"] is False
    (repository / "train.py").write_text("edited\n")
    assert provenance.code()["modified"] is True


def test_files_that_git_does_not_track_do_not_count(repository):
    (repository / "notes.txt").write_text("mine\n")
    assert provenance.code()["modified"] is False


def test_a_detached_head_is_a_commit_too(repository):
    first = git(repository, "rev-parse", "HEAD")
    (repository / "train.py").write_text("second\n")
    commit_all(repository)
    git(repository, "checkout", "-q", first)
    assert provenance.code() == {"commit": first, "modified": False}


def test_a_project_inside_a_larger_repository_looks_at_itself_only(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    for path in (inner / "config.yaml", inner / "dvc.lock", tmp_path / "other.py"):
        path.write_text("as committed\n")
    git(tmp_path, "init", "-q")
    commit = commit_all(tmp_path)
    monkeypatch.chdir(inner)
    (tmp_path / "other.py").write_text("edited\n")
    (inner / "dvc.lock").write_text("outs of this run\n")
    assert provenance.code() == {"commit": commit, "modified": False}
    (inner / "config.yaml").write_text("edited\n")
    assert provenance.code()["modified"] is True


UNKNOWN = {"commit": None, "modified": None}


def test_an_archive_unpacked_in_somebody_elses_repository_has_no_commit(repository, monkeypatch):
    unpacked = repository / "unpacked"
    unpacked.mkdir()
    (unpacked / "config.yaml").write_text("mine\n")
    monkeypatch.chdir(unpacked)
    assert provenance.code() == UNKNOWN


def test_without_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.code() == UNKNOWN


def test_before_the_first_commit_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("mine\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    monkeypatch.chdir(tmp_path)
    assert provenance.code() == UNKNOWN


def test_without_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    assert provenance.code() == UNKNOWN


def test_versions_are_those_installed_and_no_others(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "nobody-has-this"))
    found = provenance.versions()
    assert found == {"python": found["python"], "torch": version("torch")}
    assert found["python"].count(".") == 2


def test_the_machine_says_what_decides_the_last_bits():
    found = provenance.machine()
    assert {"host", "system", "cpu", "instructions", "cores"} <= set(found)
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"] and 1 <= found["cores"] <= os.cpu_count()
    assert ("gpu" in found) is torch.cuda.is_available()


def test_a_gpu_is_named_with_its_libraries(monkeypatch):
    for name, value in {"is_available": True, "get_device_name": "NVIDIA H200", "device_count": 2}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = provenance.machine()
    assert [found[name] for name in ("gpu", "gpus", "cuda", "cudnn")] == ["NVIDIA H200", 2, "13.0", 91900]


def test_an_environment_can_be_written_down():
    found = provenance.environment()
    assert set(found) == {"versions", "machine", "code"}
    assert canonical_json(found)
