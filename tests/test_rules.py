"""What the rule files must not do, and how they start a script."""

import re
from pathlib import Path

import pytest
import yaml

from targetwise.cluster import slurm
from targetwise.cluster.slurm import gpu_demand, launcher, time_budget

ROOT = Path(__file__).parent.parent
RULE_FILES = sorted([ROOT / "Snakefile", *(ROOT / "rules").rglob("*.smk")])


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_no_rule_has_retries_of_its_own(path):
    """Under SLURM they multiply with the profile's, and keep the first time limit."""
    assert not re.search(r"^\s*retries\s*:", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_no_rule_says_what_it_needs_of_a_machine(path):
    """Partition, GPUs, memory and time are the profile's."""
    assert not re.search(r"^\s*resources\s*:", path.read_text(), re.MULTILINE)


def test_the_default_profile_leaves_the_cluster_to_the_other():
    """It is stronger than `--profile slurm`, key by key."""
    default = yaml.safe_load((ROOT / "profiles/default/config.v9+.yaml").read_text())
    slurm = yaml.safe_load((ROOT / "slurm/config.v9+.yaml").read_text())
    shared = {key for key in default if key in slurm and default[key] != slurm[key]}
    assert shared == set()
    assert not {"executor", "default-resources", "set-resources", "resources", "cores", "jobs"} & set(default)


@pytest.mark.parametrize(
    ("resources", "start"),
    [
        ({}, "python"),
        ({"gpu": 1, "nodes": 1}, "python"),
        ({"gpu": 4, "nodes": 1}, "torchrun --standalone --nproc-per-node=4"),
        ({"gres": "gpu:2"}, "torchrun --standalone --nproc-per-node=2"),
        ({"gres": "gpu:a100:2"}, "torchrun --standalone --nproc-per-node=2"),
    ],
)
def test_one_process_per_gpu(resources, start):
    assert launcher(resources) == start


@pytest.mark.parametrize(
    ("resources", "option"),
    [
        ({}, ""),
        ({"gpu": 0, "nodes": 1}, ""),
        ({"gpu": 1}, "--gpu"),
        ({"gpu": 4}, "--gpu"),
        ({"gres": "gpu:2", "gpu": 0}, "--gpu"),
    ],
)
def test_a_job_that_asks_for_a_gpu_says_so_to_its_script(resources, option):
    assert gpu_demand(resources) == option


def test_every_script_that_can_use_a_gpu_is_told_of_the_demand():
    """Who takes no --gpu could compute on a node's CPU for days while the GPU beside it is broken."""
    rules = "".join(path.read_text() for path in RULE_FILES)
    for path in (ROOT / "workflow/scripts").glob("*.py"):
        if '"--gpu"' in path.read_text():
            command = rules.split(f"workflow/scripts/{path.name} ", 1)[1].split("> {log}", 1)[0]
            assert "{params.gpu}" in command, path


def test_several_nodes_meet_at_the_first():
    start = launcher({"nodes": 2, "gres": "gpu:4", "tasks": 2, "mpi": "srun"})
    assert start.startswith("srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --gres=gpu:4 bash -c 'exec torchrun ")
    assert "--nnodes=2 --nproc-per-node=4" in start
    assert '--rdzv-endpoint="$SLURM_LAUNCH_NODE_IPADDR:' in start and start.endswith('"$@"\' torchrun')


@pytest.mark.parametrize(
    ("minutes", "options"),
    [
        (None, ""),
        (0, ""),
        ("<TBD>", ""),
        (1, "--time-budget 60 --margin 12"),
        (10, "--time-budget 600 --margin 120"),
        (480, "--time-budget 28800 --margin 120"),
    ],
)
def test_training_is_told_its_time_less_what_saving_needs(minutes, options):
    assert time_budget({"runtime": minutes}) == options


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("0:07", 7),
        ("12:34", 754),
        ("1:00:02", 3602),
        ("2-03:04:05", 2 * 86400 + 3 * 3600 + 4 * 60 + 5),
        ("INVALID", 0),
        ("", 0),
    ],
)
def test_the_job_has_run_as_long_as_slurm_says(monkeypatch, answer, seconds):
    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(slurm, "ask", lambda *command: asked.append(command) or f"      {answer}\n")
    assert slurm.seconds_used() == seconds
    assert asked == [("squeue", "--noheader", "--jobs=17", "--format=%M")]


def test_outside_a_job_slurm_is_not_asked(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(slurm, "ask", None)
    assert slurm.seconds_used() == 0


def test_a_silent_slurm_does_not_stop_a_training(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.seconds_used() == 0
