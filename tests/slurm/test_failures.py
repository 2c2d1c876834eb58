"""One run through most of what goes wrong: a trainer killed, a job requeued, one whose time is up, a cell that always
fails, nodes drained, and a status command that fails for half a minute. What can be finished is, bit for bit.
"""

import os
import signal
import time

import pandas as pd
import pytest
from cluster import processes_with
from project import eventually

from targetwise.files import read_json

HELD = ["killed", "requeued", "long"]
OUTAGE_SECONDS = 30


@pytest.fixture(scope="module")
def project(new_project, cluster):
    """The project after that run."""
    made = new_project()
    holds = {name: made.hold(name) for name in HELD}
    made.add_broken("broken")
    made.configure(
        grid={"parameterizations": [*HELD, "broken"], "scales": ["tiny"], "seeds": [0]},
        training={"steps": 300, "global_batch": 16, "log_every": 4, "save_every_seconds": 1},
    )
    made.edit_profile(
        "(wildcards.scale, '4h')", "(wildcards.scale, '1m' if wildcards.parameterization == 'long' else '4h')"
    )
    driver = made.start("--retries", "1", targets=["results/cluster/table.csv"])
    states = {name: made.cell(name) / "state/train" for name in HELD}
    for name, state in states.items():
        eventually(lambda state=state: list(state.glob("step-*.sha256")), f"{name} saved its state")
    made.status_while_running = made.targetwise("status").stdout

    (outage := cluster.folder / "outage").touch()
    began = time.monotonic()
    nodes = ",".join(cluster.names)
    cluster.command("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=test")
    made.numbers = {name: read_json(state / "heartbeat.json")["job"] for name, state in states.items()}
    for process in processes_with(f"SLURM_JOB_ID={made.numbers['killed']}"):
        os.kill(process, signal.SIGKILL)
    cluster.command("scontrol", "requeue", made.numbers["requeued"])
    for name in ("killed", "requeued"):
        holds[name].unlink()
    eventually(lambda: dict(cluster.queue())[made.numbers["requeued"]] == "PENDING", "the job is queued again")
    time.sleep(3)
    made.queue_while_drained = dict(cluster.queue())
    cluster.command("scontrol", "update", f"nodename={nodes}", "state=resume")
    time.sleep(max(0, began + OUTAGE_SECONDS - time.monotonic()))
    made.refused = len(outage.read_text())
    outage.unlink()

    eventually(
        lambda: cluster.jobs()[made.numbers["long"]]["JobState"] == "FAILED", "the long job has used up its time"
    )
    made.words_of_long = (made.cell("long") / "log/train.log").read_text()
    holds["long"].unlink()
    made.code = driver.wait(timeout=400)
    return made


def test_all_but_the_broken_cell_are_finished(project):
    assert project.code == 1, project.log[-5000:]
    table = pd.read_csv(project.folder / "results/cluster/table.partial.csv").set_index("parameterization")
    assert table.status.to_dict() == {**dict.fromkeys(HELD, "finished"), "broken": "missing"}


def test_the_broken_cell_is_named(project):
    assert "missing: broken-tiny-0 draw 0" in project.log
    assert [job["JobState"] for job in project.jobs("train", "broken")] == ["FAILED", "FAILED"]  # one retry, no more
    shown = project.targetwise("status").stdout
    assert "broken-tiny-0  failed  RuntimeError: this cell always fails" in shown
    assert "4 cells: 3 done, 1 failed" in shown


def test_a_killed_trainer_goes_on_in_the_next_job(project, tmp_path):
    first, second = project.jobs("train", "killed")
    assert (first["JobId"], first["JobState"], second["JobState"]) == (
        project.numbers["killed"],
        "FAILED",
        "COMPLETED",
    )
    require_same_weights(project, "killed", tmp_path)


def test_a_requeued_job_goes_on_under_its_number(project, tmp_path):
    (job,) = project.jobs("train", "requeued")
    assert (job["JobId"], job["JobState"], job["Restarts"]) == (project.numbers["requeued"], "COMPLETED", "1")
    require_same_weights(project, "requeued", tmp_path)


def test_a_job_whose_time_is_up_goes_on_in_the_next(project, tmp_path):
    first, second = project.jobs("train", "long")
    assert (first["TimeLimit"], first["JobState"], second["JobState"]) == ("00:01:00", "FAILED", "COMPLETED")
    assert "stopped: train long-tiny-0: the time budget is used up; state saved after step" in project.words_of_long
    require_same_weights(project, "long", tmp_path)


def test_no_job_starts_while_the_nodes_are_drained(project):
    assert project.queue_while_drained[project.numbers["requeued"]] == "PENDING"
    assert project.queue_while_drained[project.numbers["long"]] == "RUNNING"  # what runs there is let finish


def test_a_failing_status_command_is_asked_again(project):
    assert project.refused > 5
    assert len(project.jobs("train")) == 4 + 3  # four cells and the retries of three: none was forgotten


def test_status_tells_who_trains(project):
    shown = project.status_while_running
    assert f"job {project.numbers['killed']})" in shown and "steps/s" in shown and "of 300" in shown, shown


def require_same_weights(project, name, tmp_path):
    """Compare with a training in one go."""
    cell = project.cell(name)
    assert read_json(cell / "training.json")["model_sha256"] == project.uninterrupted(cell, tmp_path)
