"""What the tests of the core share beside fixtures: names, and parameterizations made on the spot."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from targetwise import cells
from targetwise.cells import Cell
from targetwise.check.roundtrip import check
from targetwise.diffusion.parameterization import Parameterization, load
from targetwise.diffusion.schedule import at, make_schedule
from targetwise.errors import UserError
from targetwise.files import read_whole, sha256_of_array, write_json
from targetwise.recipe import config as configuration
from targetwise.sampling import denoiser as sampling

ROOT = Path(__file__).parent.parent

#: Every parameterization there is.
FILES = sorted(path.stem for path in (ROOT / "workflow/parameterizations").glob("*.py"))

#: Every noise path there is, and what diffusers calls those that it has too.
PATHS = sorted(path.stem for path in (ROOT / "workflow/paths").glob("*.py"))
DIFFUSERS_PATHS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}

with contextlib.chdir(ROOT):
    EXAMPLE = configuration.load([Path("config/digits.yaml")])

#: The switches that matter for speed, as config.yaml has them on a GPU.
FAST = {
    "precision": "bf16",
    "channels_last": True,
    "fused_optimizer": True,
    "compile": True,
    "tf32": False,
    "deterministic": False,
}

#: Our smallest U-Net, as one writes it in diffusers.
DIFFUSERS_UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 2,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "norm_eps": 1e-6,
    "attention_head_dim": 8,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
}

LINEAR = {"schedule": "linear", "timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "times": "uniform"}
VARIANT = {"weighting": "constant", "parameters": {}, "diffusion": LINEAR}


def stack(overlay: Path) -> list[Path]:
    """Return a configuration file on top of those that its header says it is laid over."""
    said = re.search(r"[Ll]aid over[\s#]+((?:config/\w+\.yaml(?: and )?)+)", overlay.read_text(encoding="utf-8"))
    return [*(ROOT / name for name in re.findall(r"config/\w+\.yaml", said[1] if said else "")), overlay]


def is_plain(target: Parameterization) -> bool:
    """Return whether a parameterization needs no constant of a variant and outputs as many channels as the images."""
    schedule, image, timesteps = make_schedule(LINEAR), torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    try:
        output = target.compute_training_target(image, image, timesteps, schedule)
        return output.shape == target.predict_x0(output, image, timesteps, schedule).shape == image.shape
    except KeyError:
        return False


with contextlib.chdir(ROOT):
    #: What is tested because it is there. Any other file is checked by the study that gives its constants.
    TARGETS = [name for name in FILES if is_plain(load(name))]


def copy_working_tree(folder: Path) -> None:
    """Copy what a clone of the working tree would hold into ``folder``: files that git tracks or does not ignore.

    The record of results that were made here is left out: in a project without these results it is nobody's.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def skip_or_fail_in_ci(reason: str) -> NoReturn:
    """Skip a test whose tools this machine lacks; in continuous integration they must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def whole_outcome(**changes: Any) -> dict[str, Any]:
    """Return a training.json that holds what it must and no more, as that of a user's own procedure does."""
    return {
        "status": "finished",
        "reason": None,
        "steps": 12,
        "final_loss": 0.5,
        "model_sha256": "0123456789abcdef" * 4,
        "seconds": 6.0,
        "finished_at": 1_790_000_006.0,
        "environment": {
            "versions": {"python": "3.11.7", "torch": "2.0"},
            "machine": {"host": "node1", "system": "Linux x86_64", "cpu": "CPU", "cores": 2},
            "code": {"commit": "c" * 40, "modified": False},
        },
        **changes,
    }


def denoise(denoiser: Any, noise: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Run the sampler that ``options`` name, for a denoiser with a ``variant``."""
    return sampling.denoise(denoiser, noise, sampling.Sampler(denoiser.variant, options))


def of_one_cell(study: Mapping[str, Any], cell: Cell) -> dict[Path, dict[str, Any]]:
    """Return the specifications of a study that has no other cell."""
    grid = {"parameterizations": [cell.parameterization], "scales": [cell.scale], "seeds": [cell.seed]}
    return cells.specifications({**study, "grid": {**study["grid"], **grid}})


def sampled_facts(study: Mapping[str, Any], cell: Cell, sampler: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the facts beside samples say of how they were made, if they were made under ``study``."""
    specifications = of_one_cell(study, cell)
    options = specifications[cells.sampling_file(cell.folder.parents[2], cell.parameterization, sampler)]
    key = cells.Keys(None).of_samples(specifications[cell.folder / "cell.json"], training, options, training["draw"])
    return {"key": key, "sampling": options}


def as_measured(study: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a cell with the key that it has if it was sampled and measured under ``study``.

    Its training is the one that is there, or else one that finished.
    """
    cell, sampler = Cell(**row["cell"]), row["sampler"]
    status = (read_whole(cell.folder / "training.json") or {"status": "finished"})["status"]
    training = {"model_sha256": row["model_sha256"], "status": status, "draw": row["draw"]}
    samples = {**row, "key": sampled_facts(study, cell, sampler, training)["key"]}
    reference = {"images_sha256": row["reference_sha256"], "extractor_sha256": row["extractor_sha256"]}
    specifications = of_one_cell(study, cell)
    metric = specifications[cell.folder.parents[2] / "metric.json"]
    key = cells.draw_key(specifications[cell.folder / "cell.json"], samples, sampler, metric, reference)
    return {**row, "key": key}


def link_workflow(project: Path) -> Path:
    """Link all of ``workflow/`` into a project; return its folder of parameterizations, where a test may add some."""
    folder = project / "workflow/parameterizations"
    folder.mkdir(parents=True)
    for path in (ROOT / "workflow").iterdir():
        if path.name != folder.name:
            (project / "workflow" / path.name).symlink_to(path)
    for path in (ROOT / "workflow/parameterizations").glob("*.py"):
        (folder / path.name).symlink_to(path)
    return folder


def write_dataset(folder: Path, images: np.ndarray) -> None:
    """Write a prepared data set whose two splits are ``images`` (N, H, W, C) uint8, all labelled 0."""
    folder.mkdir(parents=True)
    labels = np.zeros(len(images), dtype=np.int64)
    np.savez(folder / "dataset.npz", train=images, train_labels=labels, test=images, test_labels=labels)
    digest = sha256_of_array(images)
    write_json(folder / "manifest.json", {"splits": {split: {"sha256": digest} for split in ("train", "test")}})


def parameterization(compute: Callable, predict: Callable, name: str = "tried") -> Parameterization:
    """Return a parameterization without a file."""
    return Parameterization(name, "0" * 64, compute, predict)


def affine(p: Callable, q: Callable, name: str = "affine") -> Parameterization:
    """Return y = p·ε + q·x_0 with its inverse x_0 = (p·x_t − b·y)/D, D = p·a − q·b; p, q take a and b."""

    def compute(x_0: Tensor, noise: Tensor, timesteps: Tensor, schedule: dict[str, Tensor]) -> Tensor:
        a, b = at(schedule, timesteps)
        return p(a, b) * noise + q(a, b) * x_0

    def predict(model_output: Tensor, x_t: Tensor, timesteps: Tensor, schedule: dict[str, Tensor]) -> Tensor:
        a, b = at(schedule, timesteps)
        return (p(a, b) * x_t - b * model_output) / (p(a, b) * a - q(a, b) * b)

    return parameterization(compute, predict, name)


def some_images(count: int, channels: int = 3, size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return x_0 in [-1, 1] and ε, fp64, (count, channels, size, size)."""
    random = np.random.default_rng(seed)
    shape = (count, channels, size, size)
    return torch.from_numpy(random.uniform(-1, 1, shape)), torch.from_numpy(random.standard_normal(shape))


def diffusers_options(diffusion: dict[str, Any]) -> dict[str, Any]:
    """Translate the configuration's ``diffusion`` section into arguments of a diffusers scheduler."""
    return {
        "num_train_timesteps": diffusion["timesteps"],
        "beta_schedule": DIFFUSERS_PATHS[diffusion["schedule"]],
        "beta_start": diffusion["beta_start"],
        "beta_end": diffusion["beta_end"],
    }


def signal_to_noise(schedule: dict[str, Tensor]) -> Tensor:
    """Return SNR(t) = a²/b², shape (T,)."""
    return (schedule["sqrt_alpha"] / schedule["sqrt_one_minus_alpha"]) ** 2


def verdict(target: Parameterization, loss_space: Parameterization | None = None, precisions=(), **changes):
    """Return what the check finds about a variant with these changes."""
    return check(target, loss_space or target, {**VARIANT, **changes}, list(precisions))


def refusal(target: Parameterization, loss_space: Parameterization | None = None, **changes) -> str:
    """Return the one line with which the check refuses a variant."""
    with pytest.raises(UserError) as caught:
        verdict(target, loss_space, **changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def v_with(predict: Callable | None = None, compute: Callable | None = None) -> Parameterization:
    """Return v with one function replaced; the replacement gets what v's function returned in place of its input."""
    v = load("v")

    def changed(function, change):
        def run(first, second, timesteps, schedule):
            result = function(first, second, timesteps, schedule)
            return change(result, second, timesteps, schedule) if change else result

        return run

    return parameterization(changed(v.compute_training_target, compute), changed(v.predict_x0, predict), "broken")
