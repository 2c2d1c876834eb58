"""A question nobody foresaw, through the whole pipeline: axes from configuration alone, and a file of each kind."""

import json
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, copy_working_tree

from targetwise.cells import Cell, probes
from targetwise.files import read_json

pytestmark = pytest.mark.deep

BASE = ["config/digits.yaml", "tests/tiny.yaml"]
PAGE = (ROOT / "docs/extending.md").read_text()
BLOCKS = re.findall(r"^```python\n([\s\S]*?)^```", PAGE, re.MULTILINE)


def block(beginning):
    """Return the code of docs/extending.md whose docstring begins so."""
    return next(text for text in BLOCKS if text.startswith(f'"""{beginning}'))


def new_project(folder, study, files=None):
    copy_working_tree(folder)
    (folder / "mine.yaml").write_text(json.dumps(study))
    for path, text in (files or {}).items():
        assert not (folder / path).exists(), path
        (folder / path).write_text(text)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def typed(folder, *words, study=None):
    """Type a command for the study, whose own file is written first if it changed; return what it says."""
    if study is not None:
        (folder / "mine.yaml").write_text(json.dumps(study))
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [*words, "--configfile", *BASE, "mine.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def planned(folder, study):
    """Return how many jobs of each rule would run."""
    said = typed(folder, "snakemake", "-n", "--cores", "2", "results/mine/table.csv", study=study)
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}


# --- axes from configuration alone

AXES = {
    "study": "mine",
    "grid": {"parameterizations": ["v", "lr"], "seeds": [0], "samplings": ["few", "other"]},
    "parameterizations": {"lr": {"target": "x0", "each": {"training.learning_rate": [1e-3, 2e-3]}}},
    "samplings": {"few": {"steps": 2}, "other": {"steps": 4, "sampler": "dpmpp_2m"}},
    "bounds": False,
}


@pytest.fixture(scope="module")
def axes(tmp_path_factory):
    folder = new_project(tmp_path_factory.mktemp("axes") / "project", AXES)
    typed(folder, "snakemake", "--cores", "2", "results/mine/report.html")
    return folder


def test_a_learning_rate_and_a_sampler_are_axes(axes):
    table = pd.read_csv(axes / "results/mine/table.csv")
    names = ["v", "lr_0p001", "lr_0p002"]
    assert table.status.tolist() == ["finished"] * 6
    assert table.parameterization.tolist() == [name for name in names for _ in range(2)]
    assert table.sampling.tolist() == ["few", "other"] * 3
    assert table["training.learning_rate"].tolist() == [1e-3] * 4 + [2e-3] * 2
    assert table["sampling.steps"].tolist() == [2, 4] * 3
    assert table["sampling.sampler"].tolist() == ["ddim", "dpmpp_2m"] * 3
    assert table.target.tolist() == ["v"] * 2 + ["x0"] * 4
    assert "training.steps" not in table, "in which rows do not differ"
    assert table.value.nunique() == 6
    assert table.groupby("parameterization").model_sha256.nunique().tolist() == [1] * 3, "samplings share a training"


def test_only_what_is_of_one_scale_and_sampling_is_compared(axes):
    pairs = pd.read_csv(axes / "results/mine/pairs.csv")
    assert pairs.setting.tolist() == ["tiny, few"] * 3 + ["tiny, other"] * 3
    assert "Scale tiny with other" in (axes / "results/mine/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampling": {"batch": 7}}, {}),
        ({"samplings": {**AXES["samplings"], "few": {"steps": 2, "draws": 2}}}, {"sample": 3, "fid": 3}),
        (
            {
                "grid": {**AXES["grid"], "samplings": ["few", "other", "third"]},
                "samplings": {**AXES["samplings"], "third": {"steps": 5}},
            },
            {"sample": 3, "fid": 3},
        ),
        ({"metric": {"names": ["kid", "frechet"]}}, {"fid": 6}),
        ({"training": {"steps": 13}}, {"train": 3, "sample": 6, "fid": 6}),
    ],
    ids=["batch", "draws", "sampling", "metric", "steps"],
)
def test_what_is_added_makes_its_own_files_only(axes, change, expected):
    """Planned with Snakemake's records in place; the specifications go back to what they were afterwards."""
    jobs = planned(axes, {**AXES, **change})
    typed(axes, "targetwise", "check", study=AXES)
    assert {name: count for name, count in jobs.items() if name in ("train", "sample", "fid")} == expected


# --- a file of each kind

FILES = {
    "workflow/parameterizations/scaled.py": '''"""scaled: y = s·ε with a constant s of the variant."""


def compute_training_target(x_0, noise, timesteps, schedule):
    return schedule["s"] * noise


def predict_x0(model_output, x_t, timesteps, schedule):
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    return (x_t - b * model_output / schedule["s"]) / a
''',
    "workflow/parameterizations/heads.py": '''"""heads: x_0 and ε on twice the channels (Salimans & Ho 2022)."""

import torch


def compute_training_target(x_0, noise, timesteps, schedule):
    return torch.cat([x_0, noise], dim=1)


def predict_x0(model_output, x_t, timesteps, schedule):
    a = schedule["sqrt_alpha"][timesteps].view(-1, 1, 1, 1)
    b = schedule["sqrt_one_minus_alpha"][timesteps].view(-1, 1, 1, 1)
    x_0, noise = model_output.chunk(2, dim=1)
    return b**2 * x_0 + a * (x_t - b * noise)
''',
    "workflow/paths/arc.py": '''"""arc: a = cos(πτ/2), b = sin(πτ/2) on midpoints (Salimans & Ho 2022)."""

import math

import torch


def coefficients(timesteps, options):
    angle = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps * math.pi / 2
    return angle.cos(), angle.sin()
''',
    "workflow/weightings/clamp.py": block("1/max(b, c)²"),
    "workflow/times/late.py": '''"""late: p(t) grows linearly with t."""

import torch


def density(schedule):
    return torch.arange(1, len(schedule["sqrt_alpha"]) + 1, dtype=torch.float64)
''',
    "workflow/samplers/halfway.py": '''"""halfway: DDIM (Song et al. 2021, η = 0), with the noise of the estimate."""


def step(x_t, x_0, now, then, memory):
    return then.a * x_0 + then.b * (x_t - now.a * x_0) / now.b
''',
    "workflow/networks/conv.py": '''"""conv: two convolutions that are told the time as a constant channel."""

import torch
from torch import nn


class Conv(nn.Module):
    def __init__(self, width, in_channels, out_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels + 1, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x, timesteps):
        time = (timesteps.float() / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return self.conv_out(nn.functional.silu(self.first(torch.cat([x, time], dim=1))))


def build(options, *, in_channels, out_channels, image_size):
    return Conv(options["width"], in_channels, out_channels)
''',
    "workflow/metrics/shift.py": block("shift: "),
    "workflow/probes/size.py": block("size: "),
}

KINDS = {
    "study": "mine",
    "grid": {
        "parameterizations": ["two_s", "heads", "on_arc", "clamp", "late", "plain"],
        "seeds": [0],
        "samplings": ["halfway"],
    },
    "parameterizations": {
        "two_s": {"target": "scaled", "parameters": {"s": 2.0}},
        "on_arc": {"target": "v", "schedule": "arc"},
        "clamp": {"target": "epsilon", "weighting": "clamp", "parameters": {"least": 0.1}},
        "late": {"target": "v", "diffusion.times": "late"},
        "plain": {"target": "v", "network": {"network": "conv", "width": 16}},
    },
    "samplings": {"halfway": {"sampler": "halfway", "steps": 4}},
    "metric": {"names": ["frechet", "kid", "shift"]},
    "probes": ["size", "target_power"],
    "bounds": False,
}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """A study with a new file of each kind, and nothing else changed, run to its end."""
    folder = new_project(tmp_path_factory.mktemp("kinds") / "project", KINDS, FILES)
    typed(folder, "targetwise", "stages")
    typed(folder, "snakemake", "--cores", "2", "all")
    return folder


def test_a_file_of_each_kind_and_its_name_are_enough_for_snakemake(every_kind):
    table = pd.read_csv(every_kind / "results/mine/table.csv").set_index("parameterization")
    assert table.status.to_dict() == dict.fromkeys(KINDS["grid"]["parameterizations"], "finished")
    assert table.value.nunique() == 6
    assert table.loc["late", "diffusion.times"] == "late" and table.loc["on_arc", "diffusion.schedule"] == "arc"
    assert table.loc["plain", "network.network"] == "conv" and table.loc["clamp", "weighting"] == "clamp"
    row = read_json(every_kind / "results/mine/heads/tiny/seed0/fid/halfway/draw0.json")
    assert set(row["values"]) == {"frechet", "kid", "shift"} and row["value"] == row["values"]["frechet"]


def test_each_cell_is_probed(every_kind, monkeypatch):
    monkeypatch.chdir(every_kind)
    names = KINDS["grid"]["parameterizations"]
    found = {name: probes.read(Cell("mine", name, "tiny", 0)) for name in names}
    assert {reason for _, reason in found.values()} == {None}
    assert found["two_s"][0]["target_power"] == pytest.approx(4) and found["two_s"][0]["target_evenness"] == 1
    assert len({numbers["size"] for numbers, _ in found.values()}) == 6


def test_each_file_is_in_the_record_of_the_cells_that_use_it(every_kind):
    used = {
        name: set(read_json(every_kind / f"results/mine/{name}/tiny/seed0/training.json")["sources"])
        for name in KINDS["grid"]["parameterizations"]
    }
    assert "workflow/weightings/clamp.py" in used["clamp"] and "workflow/weightings/clamp.py" not in used["heads"]
    assert "workflow/paths/arc.py" in used["on_arc"] and "workflow/paths/arc.py" not in used["late"]
    assert "workflow/times/late.py" in used["late"] and "workflow/networks/conv.py" in used["plain"]


def test_dvc_keeps_the_cells_and_watches_the_files(every_kind):
    assert read_json(every_kind / "results/mine/versioned.json")["left_out"] == {}
    lock = (every_kind / "dvc.lock").read_text()
    for path in FILES:
        assert (path in lock) == ("probes" not in path), path
    assert "probe.json" not in lock


def test_mlflow_has_a_run_of_each(every_kind):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{every_kind}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 6
    assert all("shift" in run.data.metrics for run in runs)


def test_an_edited_probe_measures_again_and_makes_nothing_else(every_kind):
    file = every_kind / "workflow/probes/size.py"
    before = file.read_text()
    file.write_text(before + "\n# edited\n")
    try:
        said = typed(every_kind, "snakemake", "-n", "--cores", "2", "all")
    finally:
        file.write_text(before)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    assert {name: count for name, count in jobs.items() if name not in ("all", "total")} == {"probe": "6"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("workflow/samplers/halfway.py", {"sample": 6, "fid": 6}),
        ("workflow/metrics/shift.py", {"fid": 6}),
        ("workflow/weightings/clamp.py", {"train": 1, "sample": 1, "fid": 1}),
        ("workflow/paths/arc.py", {"train": 1, "sample": 1, "fid": 1}),
        ("workflow/samplers/ddim.py", {}),
        ("workflow/paths/flow.py", {}),
    ],
)
def test_an_edited_file_concerns_the_cells_that_use_it(every_kind, path, expected):
    file = Path(every_kind, path)
    before = file.read_text()
    file.write_text(before + "\n# edited\n")
    try:
        jobs = planned(every_kind, KINDS)
    finally:
        file.write_text(before)
    assert {name: count for name, count in jobs.items() if name in ("train", "sample", "fid")} == expected
