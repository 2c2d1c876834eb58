"""`snakemake --profile slurm all` on a real SLURM: every cell in jobs of its own, with what the profile asks for."""

import pandas as pd
import pytest
from project import Project

from targetwise.files import read_json


@pytest.fixture(scope="module")
def project(tmp_path_factory, cluster):
    """A project from nothing to its report."""
    made = Project(tmp_path_factory.mktemp("study") / "project", cluster)
    made.configure(grid={"parameterizations": ["epsilon"], "scales": ["tiny", "large"], "seeds": [0]})
    driver = made.start(targets=["all"])
    assert driver.wait(timeout=400) == 0, made.log[-5000:]
    return made


def test_table_and_report_are_whole(project):
    table = pd.read_csv(project.folder / "results/cluster/table.csv")
    assert table[["parameterization", "scale", "status"]].to_numpy().tolist() == [
        ["epsilon", "tiny", "finished"],
        ["epsilon", "large", "finished"],
    ]
    assert (project.folder / "results/cluster/report.html").exists()


def test_jobs_have_the_resources_that_the_profile_asks_for(project):
    tiny, large = sorted(project.jobs("train"), key=lambda job: job["TresPerJob"])
    assert tiny["TresPerJob"] == "gres:gpu:1" and tiny["TimeLimit"] == "04:00:00" and "mem=32000M" in tiny["TRES"]
    assert large["TresPerJob"] == "gres:gpu:2" and large["TimeLimit"] == "1-00:00:00"
    assert "mem=125G" in large["TRES"] and "cpu=8" in large["TRES"]  # 128,000 MB, as SLURM writes it
    assert {job["Partition"] for job in project.jobs()} == {"batch"}


def test_slurms_book_says_that_every_job_ended_well(project, cluster):
    book = {job["JobId"]: job["JobState"] for job in cluster.completed() if job["WorkDir"] == str(project.folder)}
    assert book == {job["JobId"]: "COMPLETED" for job in project.jobs()}


def test_several_gpus_are_several_processes(project):
    assert read_json(project.cell("epsilon", "tiny") / "training.json")["processes"] == 1
    assert read_json(project.cell("epsilon", "large") / "training.json")["processes"] == 2


def test_sample_and_metric_share_a_job_and_cheap_rules_need_none(project):
    assert len(project.jobs("measure")) == 2
    rules = {job["Comment"].split("_wildcards_")[0] for job in project.jobs()}
    assert rules == {"rule_reference_stats", "rule_train", "rule_measure_fid_sample"}


def test_training_knows_when_its_job_ends(project):
    assert "--time-budget 14400 --margin 120" in project.log


def test_nothing_is_left_to_do_on_the_cluster_or_here(project):
    """Other resources, and none at all, make no cell out of date."""
    for options in (("--profile", "slurm"), ("--cores", "1")):
        done = project.snakemake(*options, "-n", targets=["all"])
        assert "Nothing to be done" in done.stdout + done.stderr
    project.edit_profile("runtime: 1h", "runtime: 2h")
    project.edit_profile("'4h'", "'5h'")
    done = project.snakemake("--profile", "slurm", "-n", targets=["all"])
    assert "Nothing to be done" in done.stdout + done.stderr
