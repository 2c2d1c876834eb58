"""What the tests of the core share: a project of one's own, the demo's configuration, real data."""

import contextlib
import copy
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import EXAMPLE, LINEAR, ROOT, skip_or_fail_in_ci
from hypothesis import settings

from targetwise.data import store
from targetwise.data.store import Images
from targetwise.diffusion.schedule import make_schedule
from targetwise.errors import UserError
from targetwise.metric import inception
from targetwise.recipe import config as configuration

# The same examples every time, so that a red test is red for everybody.
settings.register_profile("targetwise", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("targetwise")
torch.set_num_threads(1)

#: What takes longest begins first, so that the processes that share the files end together.
LONGEST = (
    "test_workflow",
    "test_dvc_study",
    "test_axes",
    "test_crashes",
    "test_examination",
    "test_chain",
    "test_reproduce",
    "test_benchmarks",
    "test_import_under_load",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


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
    for name in ("config.yaml", "config/digits.yaml", "config/reference.yaml"):
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
            store.prepare("cifar10", study["datasets"]["cifar10"], root / "data/cifar10")
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
def pixels():
    """Ten images of noise to train on, all of one label."""
    array = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    return Images(array, np.zeros(10, dtype=np.int64), "0" * 64)


@pytest.fixture(scope="session")
def schedule():
    """The linear schedule in fp64."""
    with contextlib.chdir(ROOT):
        return make_schedule(LINEAR, dtype=torch.float64)


@pytest.fixture
def images():
    """Ten images 8×8×1."""
    array = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    return Images(array, np.zeros(10, dtype=np.int64), "0" * 64)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site as `make docs` builds it, elsewhere."""
    if importlib.util.find_spec("material") is None:
        skip_or_fail_in_ci("mkdocs-material is not installed; pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
