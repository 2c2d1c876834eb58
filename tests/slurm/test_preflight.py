"""What the cluster does not have is said in one line that names file and key, before anything is submitted."""

import pytest
from cluster import Cluster


@pytest.fixture(scope="module")
def project(new_project):
    made = new_project()
    made.configure()
    return made


WRONG = [
    (
        "slurm_partition: batch",
        "slurm_partition: bacth",
        "default-resources.slurm_partition is 'bacth', but there is no such partition; did you mean 'batch'?",
    ),
    (
        "# gpu_model: a100",
        "gpu_model: a100",
        "default-resources.gpu_model is 'a100', but partition batch has no such GPU",
    ),
    ("'4h')", "'48h')", "set-resources.train.runtime is 48h, but partition batch allows at most 24h"),
    ("  gpu: 1", "  gpu: 9", "default-resources.gpu is 9, but partition batch has at most 2 on a node"),
    ("mem: 32GB", "mem: 2TB", "default-resources.mem is 2000000 MB, but a node of partition batch has 200000 MB"),
]


@pytest.mark.parametrize(("before", "after", "words"), WRONG)
def test_a_profile_that_asks_for_what_is_not_there(project, before, after, words):
    project.edit_profile(before, after)
    try:
        done = project.snakemake("--profile", "slurm", targets=["all"])
    finally:
        project.edit_profile(after, before)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: slurm/config.v9+.yaml: {words}") and "nothing was submitted" in line
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert project.jobs() == []


def test_a_slurm_that_does_not_answer(project, tmp_path):
    shared, project.cluster = project.cluster, a_cluster_that_is_gone(tmp_path)
    try:
        told = project.targetwise("doctor")
    finally:
        project.cluster = shared
    assert told.returncode == 1 and "wrong  SLURM      SLURM does not answer: `sinfo` says '" in told.stdout


@pytest.mark.slow  # the plugin itself asks several times, with patience
def test_a_run_on_a_slurm_that_does_not_answer(project, tmp_path):
    shared, project.cluster = project.cluster, a_cluster_that_is_gone(tmp_path)
    try:
        done = project.snakemake("--profile", "slurm", targets=["all"])
    finally:
        project.cluster = shared
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: SLURM does not answer: `sinfo` says '") and done.returncode == 1


def a_cluster_that_is_gone(folder):
    with Cluster(folder) as gone:
        return gone


def test_doctor_finds_this_cluster_well(project):
    told = project.targetwise("doctor")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "ok     SLURM      answers; partitions: batch, cpu" in told.stdout
    assert "ok     accounting there is none; squeue will do" in told.stdout
    assert (
        "ok     profile    slurm/config.v9+.yaml: partition, GPUs, memory and time fit for every rule and scale"
        in told.stdout
    )


def test_doctor_lists_everything_that_is_wrong(project):
    edits = [*((before, after) for before, after, _ in WRONG[1:]), ("command: squeue", "command: sacct")]
    for before, after in edits:
        project.edit_profile(before, after)
    told = project.targetwise("doctor")
    for before, after in edits:
        project.edit_profile(after, before)
    assert told.returncode == 1
    wanted = [
        f"wrong  profile    slurm/config.v9+.yaml: {words}" for _, _, words in WRONG[1:] if "gpu is" not in words
    ]
    assert [line for line in wanted if line not in told.stdout] == []
    assert "wrong  accounting there is none; set slurm-status-command: squeue in slurm/config.v9+.yaml" in told.stdout


def test_a_dry_run_needs_no_slurm(project, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere"))
    project.edit_profile("slurm_partition: batch", "slurm_partition: bacth")
    done = project.snakemake("--profile", "slurm", "-n", targets=["all"])
    project.edit_profile("slurm_partition: bacth", "slurm_partition: batch")
    assert done.returncode == 0
