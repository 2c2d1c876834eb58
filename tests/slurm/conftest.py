"""One private SLURM for all tests here, and projects that run on it."""

from pathlib import Path

import pytest
from cluster import Cluster, missing
from helpers import skip_or_fail_in_ci
from project import Project


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The cluster that the quick tests share."""
    if absent := missing():
        skip_or_fail_in_ci(f"SLURM is not installed ({', '.join(absent)}); on Debian: apt-get install slurm-wlm")
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The folder `data` of a project in which data set and reference are made."""
    made = Project(tmp_path_factory.mktemp("digits") / "project", None)
    made.configure()
    done = made.snakemake("--cores", "2", targets=["data/digits/reference/digits-fast-train.json"])
    assert done.returncode == 0, done.stderr[-3000:]
    return made.folder / "data"


@pytest.fixture(scope="module")
def new_project(tmp_path_factory, cluster, digits):
    """A function that makes a project whose data set is there already; what runs at the end is ended."""
    drivers = []

    def make() -> Project:
        project = Project(tmp_path_factory.mktemp("project") / "project", cluster, digits)
        start = project.start

        def noted(*options, **targets):
            drivers.append(start(*options, **targets))
            return drivers[-1]

        project.start = noted
        return project

    yield make
    for driver in drivers:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    cluster.forget()
