"""Kills of the driver and of running jobs, at random moments: nothing is lost, and little is done twice."""

import os
import random
import signal
import time

import pandas as pd
import psutil
import pytest
from crashing import STEPS, Repeated, trace, trace_steps
from project import eventually

from targetwise.files import read_json

NAMES = ("epsilon", "v")
TARGETS = ["results/cluster/table.csv"]


def processes_of(job):
    """Return the processes of our scripts in a job."""
    found = []
    for process in psutil.process_iter():
        try:
            is_of = process.environ().get("SLURM_JOB_ID") == job["JobId"]
            if is_of and "workflow/scripts" in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.slow)])
def test_a_study_goes_on_through_kills_of_its_driver_and_its_jobs(new_project, tmp_path, kills):
    project = new_project()
    for name in NAMES:
        trace_steps(project.folder, name)
    grid = {"parameterizations": list(NAMES), "scales": ["tiny"], "seeds": [0]}
    training = {"steps": STEPS, "global_batch": 16, "log_every": 4, "save_every_seconds": 0}
    project.configure(grid=grid, training=training)
    chance, driver, done = random.Random(kills), None, []
    while len(done) < kills:
        driver = driver or project.start(targets=TARGETS)
        running = eventually(
            lambda driver=driver: (
                driver.poll() is not None
                or [job for job in project.jobs() if job["JobState"] == "RUNNING" and processes_of(job)]
            ),
            "a job runs",
        )
        if driver.poll() is not None:
            break
        time.sleep(chance.uniform(0, 6))
        if chance.random() < 0.4:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            driver = None
            done.append("driver")
        elif victims := processes_of(chance.choice(running)):
            victims[-1].kill()
            done.append("job")
    driver = driver or project.start(targets=TARGETS)
    assert driver.wait(timeout=580) == 0, project.log[-5000:]
    assert "LockException" not in project.log
    assert len(done) >= 3, "the study was over before it was hit"

    assert pd.read_csv(project.folder / TARGETS[0]).status.tolist() == ["finished"] * len(NAMES)
    repeated = Repeated()
    for name in NAMES:
        cell = project.cell(name)
        lines = [line for line in trace(project.folder) if line["cell"] == str(cell.relative_to(project.folder))]
        seen = list(dict.fromkeys(str(line["drawn"]) for line in lines))
        repeated.add(lines, [seen.index(str(line["drawn"])) for line in lines], 0)
        assert read_json(cell / "training.json")["model_sha256"] == project.uninterrupted(cell, tmp_path / name)
    print(f"{len(done)} kills ({', '.join(done)}), {repeated.steps} steps taken twice")
