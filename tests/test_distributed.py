"""Two processes (torchrun, gloo) against one: the same losses, weights and samples; only the speed may change."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import write_dataset
from safetensors.numpy import load_file

from targetwise.cells import grid, specifications
from targetwise.compute.distributed import World
from targetwise.errors import UserError
from targetwise.files import read_json, write_json
from targetwise.recipe import config

ROOT = Path(__file__).parent.parent
STEPS = 50


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a small data set, and cells that differ in how they are run only."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "workflow").symlink_to(ROOT / "workflow")
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    write_dataset(folder / "data/digits", images)
    return folder


def images_digest(project):
    return read_json(project / "data/digits/manifest.json")["splits"]["train"]["sha256"]


def make_cell(project, name, **training_options):
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        overlay = {
            "grid": {"parameterizations": ["v"], "seeds": [0]},
            "scales": {"tiny": {"width": 16, "layers": 1}},
            "training": {"steps": STEPS, "global_batch": 16, "log_every": 1, **training_options},
            "sampling": {"steps": 4, "images": 13, "batch": 5},
        }
        study = config.validate(config.merge(config.load([Path("config/digits.yaml")]), overlay))
        files = specifications(study)
    finally:
        os.chdir(before)
    folder = project / name
    specification = files[grid(study)[0].folder / "cell.json"]
    specification["data"]["train_sha256"] = images_digest(project)
    write_json(folder / "cell.json", specification)
    write_json(folder / "sampling.json", files[Path("results/digits/v/sampling-ddim-4.json")])
    return folder


def command(processes, script, *arguments):
    launcher = [sys.executable]
    if processes > 1:
        port = 29500 + os.getpid() % 1000
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            f"--master-port={port}",
        ]
    return [*launcher, str(ROOT / "workflow/scripts" / script), *map(str, arguments)]


def call(project, processes, script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(processes, script, *arguments),
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses(folder):
    return np.array([json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()])


@pytest.fixture(scope="module")
def trained(project):
    folders = {}
    for processes in (1, 2):
        folders[processes] = make_cell(project, f"on{processes}")
        done = call(project, processes, "train.py", "--specification", folders[processes] / "cell.json")
        assert done.returncode == 0, done.stderr[-3000:]
    return folders


def test_losses_agree_over_fifty_steps(trained):
    one, two = losses(trained[1]), losses(trained[2])
    assert len(one) == STEPS
    np.testing.assert_allclose(two, one, rtol=1e-3)
    np.testing.assert_allclose(two[:5], one[:5], rtol=1e-5)
    assert np.ptp(one) > 0.1, "the losses must move for their agreement to mean something"


def test_weights_agree(trained):
    one, two = (load_file(trained[processes] / "model.safetensors") for processes in (1, 2))
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 2e-3


def test_two_processes_write_one_log_and_one_result(trained):
    facts = json.loads((trained[2] / "training.json").read_text())
    assert facts["processes"] == 2 and facts["images"] == STEPS * 16
    assert not (trained[2] / "state/train").exists()


def test_samples_agree_by_index(trained, project):
    drawn = []
    for processes in (1, 2):
        output = project / f"drawn{processes}.npz"
        folder = trained[1]
        arguments = [
            "--specification",
            folder / "cell.json",
            "--options",
            folder / "sampling.json",
            "--draw",
            0,
            "--batch",
            5,
        ]
        done = call(project, processes, "sample.py", *arguments, "--output", output)
        assert done.returncode == 0, done.stderr[-3000:]
        drawn.append(np.load(output)["arr_0"].astype(int))
    assert drawn[0].shape == (13, 8, 8, 1)
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert np.abs(drawn[0][0] - drawn[0][1]).max() > 1, (
        "the samples must differ for their agreement to mean something"
    )


def test_stopped_under_torchrun_and_resumed_alone(trained, project):
    """A signal to one process stops all of them at one step; the state then serves any number of processes."""
    folder = make_cell(project, "stopped")
    arguments = ["--specification", folder / "cell.json", "--save-every-seconds", "0"]
    process = subprocess.Popen(
        command(2, "train.py", *arguments),
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    while not list((folder / "state/train").glob("step-*.sha256")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    if (folder / "training.json").exists():
        pytest.fail("the training ended before the signal came")
    done = call(project, 1, "train.py", "--specification", folder / "cell.json")
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(losses(folder), losses(trained[1]), rtol=1e-3)
    assert len(losses(folder)) == STEPS


def test_batch_that_does_not_divide_is_an_error(project):
    folder = make_cell(project, "odd", global_batch=15)
    done = call(project, 2, "train.py", "--specification", folder / "cell.json")
    assert done.returncode != 0
    assert "error: training.global_batch is 15, which 2 processes cannot share evenly" in done.stderr
    assert not (folder / "training.json").exists()


def test_parts_cover_everything_once():
    for size in (1, 2, 3, 7):
        parts = [World(rank, size).part(20) for rank in range(size)]
        assert [index for part in parts for index in part] == list(range(20))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(UserError, match="cannot share evenly"):
        World(0, 3).share(20, "n")
