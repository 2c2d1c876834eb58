"""The `targetwise` command, as one types it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from targetwise import cli, errors
from targetwise.data import store
from targetwise.metric.reference import Selection, make

ROOT = Path(__file__).parent.parent
DIGITS = ["--configfile", str(ROOT / "config/digits.yaml")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["targetwise", *map(str, arguments)])
    cli.main()


def test_check_names_every_parameterization(project, monkeypatch, capsys):
    call(monkeypatch, "check", *DIGITS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study digits: 9 cells × 1 draws; the configuration is sound"
    assert [line.split(":")[0] for line in lines[1:]] == ["epsilon", "v", "x0"]
    assert "up to 157 times (t = 999)" in lines[1]


def test_fid_measures_a_file_like_a_cell(project, monkeypatch, capsys):
    store.prepare("digits", {"kind": "digits"}, Path("data/digits"))
    reference = Path("data/digits/reference/digits-clean-fid-train.npz")
    make(Selection("digits", "train", None, "digits", "clean-fid"), reference)
    test = store.load(Path("data/digits"), "test").images
    np.savez("mine.npz", test)
    capsys.readouterr()
    call(monkeypatch, "fid", "mine.npz", *DIGITS, "--output", "row.json")
    row = json.loads(capsys.readouterr().out)
    assert row == json.loads(Path("row.json").read_text())
    assert (row["metric"], row["n"], row["what"]) == ("FD (digits features)", 512, "file")
    assert row["value"] == pytest.approx(0.1536, abs=1e-3)


def test_fid_without_reference_says_how_to_make_it(project, monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "fid", "mine.npz", *DIGITS)
    assert left.value.code == errors.EXIT_ERROR
    assert (
        "`snakemake --cores all data/digits/reference/digits-clean-fid-train.npz` makes it" in capsys.readouterr().err
    )


def test_outside_the_project_it_says_where_to_run(tmp_path):
    done = subprocess.run(["targetwise", "check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_ERROR
    assert done.stderr == "error: config.yaml does not exist; run this in the project's root\n"
