"""A profile held against what a cluster has, without one; tests/slurm does the same with a real one."""

import math
from pathlib import Path

import pytest
import yaml

from targetwise.cluster import preflight
from targetwise.cluster.preflight import Partition
from targetwise.errors import UserError

SINFO = """\
gpu|up|1-00:00:00|512000+|gpu:a100:4(S:0-1)
gpu|up|1-00:00:00|256000|gpu:a100:2,gpu:t4:8
cpu|up|2:00:00|128000|(null)
old|down|infinite|64000|gpu:2
"""


@pytest.fixture
def sinfo(monkeypatch):
    monkeypatch.setattr(preflight, "ask", lambda *command: SINFO)


def test_partitions_as_sinfo_shows_them(sinfo):
    found = preflight.partitions()
    assert found["gpu"] == Partition(True, 1440, 512000, {"a100": 4, "t4": 8})
    assert found["cpu"] == Partition(True, 120, 128000, {})
    assert found["old"] == Partition(False, math.inf, 64000, {"": 2})


@pytest.mark.parametrize(
    ("default", "own", "problem"),
    [
        ({}, {}, None),
        (
            {"slurm_partition": "gup"},
            {},
            "default-resources.slurm_partition is 'gup', but there is no such partition",
        ),
        ({}, {"slurm_partition": "old"}, "set-resources.train.slurm_partition is 'old', but that partition is down"),
        ({"gpu_model": "h100"}, {}, "default-resources.gpu_model is 'h100', but partition gpu has no such GPU"),
        (
            {"gpu_model": "a100"},
            {"gpu": 5},
            "set-resources.train.gpu is 5, but partition gpu has at most 4 on a node",
        ),
        ({"gpu_model": "t4"}, {"gpu": 5}, None),
        ({}, {"gpu": "dict(large=9).get(wildcards.scale, 1)"}, "set-resources.train.gpu is 9"),
        ({"slurm_partition": "cpu", "runtime": "1h"}, {}, "default-resources.gpu is 1, but partition cpu has none"),
        ({}, {"runtime": "dict(large='2d').get(wildcards.scale, '8h')"}, "set-resources.train.runtime is 48h"),
        ({}, {"runtime": 1500}, "set-resources.train.runtime is 25h"),
        ({}, {"runtime": "'30h' if wildcards.seed == '1' else '1h'"}, None),  # SLURM's to say
        ({}, {"slurm_partition": "'cpu' if wildcards.seed == '1' else 'gpu'"}, None),
        ({"mem": "600GB"}, {}, "default-resources.mem is 600000 MB"),
        ({"mem": "600GB"}, {"mem_mb": 1000}, "default-resources.mem is 600000 MB"),
        ({}, {"mem_mb": 513000}, "set-resources.train.mem_mb is 513000 MB"),
    ],
)
def test_first_problem(sinfo, default, own, problem):
    profile = {
        "default-resources": {"slurm_partition": "gpu", "gpu": 1, "runtime": "8h", "mem": "32GB", **default},
        "set-resources": {"train": own},
    }
    found = preflight.problems(profile, ["small", "large"], preflight.partitions())
    assert [line[: len(problem or "")] for line in found[:1]] == ([problem] if problem else [])


def test_our_own_profile_fits_an_ordinary_cluster(sinfo):
    profile = yaml.safe_load(Path("slurm/config.v9+.yaml").read_text())
    assert preflight.problems(profile, ["small", "medium", "large"], preflight.partitions()) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        (["snakemake", "--profile", "slurm", "all"], {}, "slurm/config.v9+.yaml"),
        (["snakemake", "--profile=slurm"], {}, "slurm/config.v9+.yaml"),
        (["snakemake"], {"SNAKEMAKE_PROFILE": "slurm"}, "slurm/config.v9+.yaml"),
        (["snakemake", "--profile", "elsewhere"], {}, None),
        (["snakemake"], {}, None),
    ],
)
def test_profile_that_a_command_line_names(arguments, environment, found):
    assert preflight.profile_file(arguments, environment) == (Path(found) if found else None)


def test_a_missing_command_and_a_failing_one_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="SLURM's command sinfo is not on this machine"):
        preflight.ask("sinfo")
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'connect failure' >&2\nexit 1\n")
    (tmp_path / "sinfo").chmod(0o755)
    with pytest.raises(UserError, match="SLURM does not answer: `sinfo` says 'connect failure'"):
        preflight.ask("sinfo")
