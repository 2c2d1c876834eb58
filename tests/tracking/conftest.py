"""A study of two cells whose files are made up, and an MLflow in which nothing is."""

import contextlib
import shutil

import pytest
from mlflow.tracking import MlflowClient
from mlflow_tools import HERE, apart
from synthetic import Files


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database of MLflow's in which nothing is; it takes seconds to make."""
    folder = tmp_path_factory.mktemp("empty")
    with contextlib.chdir(folder):
        apart(_open, HERE)
    return folder / "mlflow.db"


def _open(uri):
    MlflowClient(uri).search_experiments()


@pytest.fixture
def config(study, project, empty_database):
    """Two cells of the demo with two draws of samples each, in a project whose MLflow is empty."""
    shutil.copy(empty_database, project / "mlflow.db")
    study["grid"] |= {"parameterizations": ["epsilon", "v"], "seeds": [0]}
    study["sampling"]["draws"] = 2
    return study


@pytest.fixture
def made(config):
    """The files of the study's cells."""
    return Files(config)
