"""What the tests of the core share: a project of one's own, and parameterizations made on the spot."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from targetwise import config as configuration
from targetwise import data, inception
from targetwise.data import Images
from targetwise.errors import UserError
from targetwise.parameterization import Parameterization
from targetwise.schedule import at, make_schedule

ROOT = Path(__file__).parent.parent

#: Every parameterization there is; a new file is tested because it is there.
TARGETS = sorted(path.stem for path in (ROOT / "workflow/parameterizations").glob("*.py"))

with contextlib.chdir(ROOT):
    EXAMPLE = configuration.load([Path("config/digits.yaml")])

LINEAR = {"schedule": "linear", "timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}

# The same examples every time, so that a red test is red for everybody.
settings.register_profile("targetwise", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("targetwise")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Run where the commands run: paths of the project are relative to its root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with this one's workflow and configuration; the test runs in it."""
    for name in ("workflow", "rules", "Snakefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config").mkdir()
    for name in ("config.yaml", "config/digits.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def study():
    """The valid configuration of the demo, free to be changed."""
    return copy.deepcopy(EXAMPLE)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory):
    """A folder with CIFAR-10 and the Inception weights, from the configuration's sources."""
    root = tmp_path_factory.mktemp("real")
    try:
        with contextlib.chdir(ROOT):
            study = configuration.load()
            data.prepare("cifar10", study["datasets"]["cifar10"], root / "data/cifar10")
            inception.prepare(study["weights"]["inception"]["sources"], root / "data/weights/inception.pt")
    except UserError as error:
        pytest.skip(f"no real data on this machine: {error}")
    return root


@pytest.fixture
def real(project, real_data):
    """A project with CIFAR-10 and the Inception weights; the test runs in it."""
    (project / "data").mkdir()
    for name in ("cifar10", "weights"):
        (project / "data" / name).symlink_to(real_data / "data" / name)
    return project


@pytest.fixture(scope="session")
def schedule():
    """The linear schedule in fp64."""
    return make_schedule(LINEAR, dtype=torch.float64)


@pytest.fixture
def images():
    """Ten images 8×8×1."""
    array = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    return Images(array, np.zeros(10, dtype=np.int64), "0" * 64)


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
