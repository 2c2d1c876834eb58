"""What happens to the driver: killed while its jobs run, started again beside them, its configuration edited."""

import json
import os
import signal

import pandas as pd
from project import eventually

from targetwise.files import read_json

LONG = {"steps": 300, "global_batch": 16, "log_every": 4, "save_every_seconds": 1}


def test_a_driver_started_beside_its_own_orphans_trains_nothing_twice(new_project, tmp_path):
    project = new_project()
    hold = project.hold("orphan")
    grid = {"parameterizations": ["orphan"], "scales": ["tiny"], "seeds": [0]}
    project.configure(grid=grid, training=LONG)
    cell = project.cell("orphan")
    first = project.start(targets=["results/cluster/table.csv"])
    eventually(lambda: list((cell / "state/train").glob("step-*.sha256")), "the orphan saved its state")
    (orphan,) = project.jobs("train")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert project.snakemake("--profile", "slurm", "--unlock", targets=[]).returncode == 0

    second = project.start(targets=["results/cluster/table.csv"])
    log = cell / "log/train.log"
    said = f"waiting: {cell.relative_to(project.folder)}/state/train is in use by another process"
    eventually(lambda: said in log.read_text(errors="replace"), "the second job says who has the cell")
    assert f"job {orphan['JobId']})" in log.read_text(errors="replace")
    assert "RUNNING" in {job["JobState"] for job in project.jobs("train")[:1]}
    hold.unlink()
    assert second.wait(timeout=300) == 0, project.log[-5000:]

    assert [job["JobState"] for job in project.jobs("train")] == ["COMPLETED", "COMPLETED"]
    assert "steps" not in log.read_text()  # the second job took over what the first one had made
    assert read_json(cell / "training.json")["model_sha256"] == project.uninterrupted(cell, tmp_path)
    assert pd.read_csv(project.folder / "results/cluster/table.csv").status.tolist() == ["finished"]


def test_jobs_refuse_a_configuration_that_was_edited_meanwhile(new_project, cluster):
    project = new_project()
    grid = {"parameterizations": ["epsilon"], "scales": ["tiny"], "seeds": [0]}
    project.configure(grid=grid, training=LONG)
    specification = project.cell("epsilon") / "cell.json"
    # Nothing starts until the edit is made.
    cluster.command("scontrol", "update", f"nodename={','.join(cluster.names)}", "state=drain", "reason=test")
    try:
        driver = project.start("--retries", "0", targets=["results/cluster/table.csv"])
        eventually(lambda: project.jobs("train"), "the job is submitted")
        before = specification.read_text()
        project.configure(grid=grid, training={**LONG, "steps": 500})
    finally:
        cluster.command("scontrol", "update", f"nodename={','.join(cluster.names)}", "state=resume")
    assert driver.wait(timeout=300) == 1
    (job,) = project.jobs("train")
    assert job["JobState"] == "FAILED"
    (log,) = (project.folder / ".snakemake/slurm_logs/rule_train").rglob(f"{job['JobId']}.log")
    assert "error: the configuration was edited while a run is under way" in log.read_text()
    assert specification.read_text() == before and json.loads(before)["training"]["steps"] == 300
    assert "missing: epsilon-tiny-0" in project.log
    assert not (project.cell("epsilon") / "training.json").exists()
