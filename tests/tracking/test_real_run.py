"""The importer beside a real run of the pipeline: it shows what there is, and ends with the run."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers import copy_working_tree
from mlflow_tools import from_nothing, look, targetwise, without_ids

from targetwise.recipe import config as configuration

STUDY = ["--configfile", "config/digits.yaml", "tests/tiny.yaml"]


@pytest.mark.slow
def test_following_a_real_run_shows_cells_before_the_grid_is_done_and_ends_with_it(
    tmp_path, monkeypatch, empty_database
):
    copy_working_tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))
    following = targetwise("track", "--follow", "0.5", *STUDY)
    # The pipeline imports too, at its end.
    command = ["snakemake", "--cores", "2", *STUDY, "--", "results/tiny/tracked.json"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said, complaints = following.communicate(timeout=300)
    assert following.returncode == 0, complaints
    told = said.splitlines()[1:]
    assert told[0] == "0 imported, 0 unchanged, 4 waiting"
    assert any(not line.endswith(" 0 waiting") for line in told[1:]), "a run was there before the last cell began"
    assert told[-1].endswith(" 0 waiting")
    config = configuration.load([Path("config/digits.yaml"), Path("tests/tiny.yaml")])
    found = look(config)
    assert {run["status"] for run in found.values()} == {"FINISHED"} and len(found) == 4
    assert without_ids(found) == from_nothing(config, empty_database)
