"""What `targetwise doctor` says where something is missing; tests/slurm asks it on a real cluster."""

import importlib.util
import json
import socket
from pathlib import Path

import pytest

from targetwise.operations import doctor
from targetwise.recipe.config import load


@pytest.fixture
def study(project, monkeypatch):
    """The digits in a project of its own, on a machine without SLURM."""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    return load([project / "config/digits.yaml"])


def findings(study):
    return {finding.what: finding for finding in doctor.examine(study, Path("slurm"))}


def test_a_fresh_laptop_has_notes_and_nothing_wrong(study):
    found = findings(study)
    assert {finding.state for finding in found.values()} == {"ok", "note"}
    assert "only `--profile slurm` needs them" in found["SLURM"].words
    assert "snakemake --cores 1 -- data/digits/dataset.npz" in found["data"].words


def test_a_damaged_data_set_is_named(study, project):
    folder = project / "data/digits"
    folder.mkdir(parents=True)
    (folder / "dataset.npz").write_bytes(b"half")
    shape = {"splits": {"train": {"shape": [10, 8, 8, 1]}}, "file_sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(shape))
    found = findings(study)
    assert found["data"].state == "wrong" and "delete it" in found["data"].words


def test_a_folder_of_dvcs_without_dvc_is_wrong(study, project, monkeypatch):
    (project / ".dvc").mkdir()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dvc" else real(name))
    found = findings(study)["DVC"]
    assert found.state == "wrong" and found.words.startswith("the package 'dvc' is missing; run `make setup`")


def test_disk_need_against_what_is_free(study, project, monkeypatch):
    (project / "data/digits").mkdir(parents=True)
    shape = {"splits": {"train": {"shape": [10, 8, 8, 1]}}, "file_sha256": "0" * 64}
    (project / "data/digits/manifest.json").write_text(json.dumps(shape))
    study["sampling"]["images"] = 10**9
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("", (), {"free": 10**9}))
    (found,) = doctor._disk(study)
    assert found.state == "wrong"
    cells = len(study["grid"]["parameterizations"]) * len(study["grid"]["seeds"])
    assert f"about {cells * 64:.0f}" in found.words  # 64 bytes an image, 1e9 of them in a cell


def test_a_tracking_server_that_is_away(study):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    study["tracking"] = {"uri": f"http://127.0.0.1:{port}"}
    (found,) = doctor._mlflow(study)
    assert found.state == "wrong" and f"127.0.0.1:{port} does not answer" in found.words


def test_a_folder_that_cannot_be_written(study, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    (found,) = doctor._folder()
    assert found.state == "wrong" and "Permission denied" in found.words


@pytest.mark.parametrize(
    ("storage", "age", "chosen", "state", "words"),
    [
        ("accounting_storage/none", "300 sec", "squeue", "ok", "squeue will do"),
        ("accounting_storage/none", "300 sec", "sacct", "wrong", "set slurm-status-command: squeue"),
        ("accounting_storage/none", "60 sec", "squeue", "wrong", "squeue forgets a job 60 s after its end"),
        ("accounting_storage/slurmdbd", "60 sec", "sacct", "ok", "sacct will do"),
        ("accounting_storage/slurmdbd", "300 sec", "squeue", "ok", "sacct in"),
    ],
)
def test_status_command(monkeypatch, storage, age, chosen, state, words):
    settings = f"AccountingStorageType   = {storage}\nMinJobAge               = {age}\n"
    monkeypatch.setattr(doctor.preflight, "ask", lambda *command: settings)
    found = doctor._status_command({"slurm-status-command": chosen}, Path("slurm/config.v9+.yaml"))
    assert found.state == state and words in found.words


@pytest.mark.parametrize(("on_a_gpu", "state"), [(True, "wrong"), (False, "note")])
def test_what_compiling_needs_on_a_gpu_node_is_named(study, on_a_gpu, state, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_a_gpu)
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: str(tmp_path))
    (found,) = doctor._compiling(study)
    assert found.state == state
    assert "a C compiler" in found.words and f"{tmp_path}/Python.h" in found.words

    monkeypatch.setenv("CC", "/opt/gcc/bin/gcc")
    (found,) = doctor._compiling(study)
    assert found.state == state and "C compiler" not in found.words

    (tmp_path / "Python.h").write_text("")
    (found,) = doctor._compiling(study)
    assert (found.state, found.words) == ("ok", "/opt/gcc/bin/gcc and Python.h are there")

    study["training"]["compile"]["cuda"] = False
    assert not list(doctor._compiling(study))
