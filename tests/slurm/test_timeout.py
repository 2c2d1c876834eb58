"""SLURM's own time limit, when training does not stop by itself: a step that hangs, ended by TIMEOUT."""

import pytest
from project import eventually

from targetwise.files import read_json


@pytest.mark.slow  # SLURM's shortest limit is a minute
def test_a_job_that_slurm_ends_at_its_time_limit_goes_on_in_the_next(new_project, cluster, tmp_path):
    project = new_project()
    hold = project.hang("stuck")
    project.configure(
        grid={"parameterizations": ["stuck"], "scales": ["tiny"], "seeds": [0]},
        training={"steps": 60, "global_batch": 16, "log_every": 4, "save_every_seconds": 0},
    )
    project.edit_profile("(wildcards.scale, '4h')", "(wildcards.scale, '1m')")
    driver = project.start("--retries", "1", targets=["results/cluster/table.csv"])
    cell = project.cell("stuck")
    eventually(lambda: list((cell / "state/train").glob("step-*.sha256")), "a state was saved")
    (first,) = project.jobs("train")
    eventually(lambda: cluster.jobs()[first["JobId"]]["JobState"] == "TIMEOUT", "SLURM has ended the job", 180)
    hold.unlink()
    assert driver.wait(timeout=400) == 0, project.log[-5000:]

    first, second = project.jobs("train")
    assert (first["JobState"], second["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert not list(cell.glob("state/train/*"))
    assert read_json(cell / "training.json")["model_sha256"] == project.uninterrupted(cell, tmp_path)
