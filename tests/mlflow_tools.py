"""How the tests import a study into MLflow, look at what it has then, and start its server.

MLflow keeps a database open for as long as a process lives, so every import and every look is a process of its own.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from urllib.error import URLError

from mlflow.tracking import MlflowClient

from targetwise.files import sha256_of_file
from targetwise.tracking import experiment, importer

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

HERE = "sqlite:///mlflow.db"

#: MLflow loads its page, server and database tools first: seconds, and more on a machine with much to do.
PATIENCE = 120.0


def apart(function, *arguments):
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def count(done):
    return {what: len(names) for what, names in done.items()}


def import_once(config):
    """Import the study in this process; return how many cells were what."""
    return count(importer.Importer(config).update())


def _update(config):
    return import_once(config), look_here(HERE, config["study"])


def update(config):
    """Import the study once; return what was done, and all that MLflow then has of it, by the runs' names."""
    return apart(_update, config)


def look(config, uri=HERE):
    """Return all that MLflow has of a study, by the runs' names."""
    return apart(look_here, uri, config["study"])


def look_here(uri, study):
    """Look from this process."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run is doubled"
    return {run.info.run_name: _all_of(client, run) for run in found}


def _all_of(client, run):
    run_id, info, data = run.info.run_id, run.info, run.data
    curves = {key: client.get_metric_history(run_id, key) for key in data.metrics}
    files, folders = {}, [None]
    while folders:
        for file in client.list_artifacts(run_id, folders.pop()):
            if file.is_dir:
                folders.append(file.path)
            else:
                files[file.path] = sha256_of_file(Path(client.download_artifacts(run_id, file.path)))
    return {
        "id": run_id,
        "status": info.status,
        "span": (info.start_time, info.end_time),
        "tags": {key: value for key, value in data.tags.items() if key != experiment.FOLDER_TAG},
        "parameters": data.params,
        "points": {key: sorted((m.step, m.value, m.timestamp) for m in curve) for key, curve in curves.items()},
        "datasets": [each.to_dictionary() for each in run.inputs.dataset_inputs],
        "files": files,
    }


def without_ids(found):
    return {name: {key: value for key, value in run.items() if key != "id"} for name, run in found.items()}


def from_nothing(config, empty_database):
    """Return all that MLflow has after the study was imported into an empty database."""
    shutil.copy(empty_database, "mlflow.db")
    _, found = update(config)
    return without_ids(found)


def targetwise(*arguments, **variables):
    """Start the command as one types it: able to hear Ctrl-C, even if the tests run in the background."""
    command = [sys.executable, "-c", "from targetwise.cli import main; main()", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def configured(config):
    """Write the configuration and return how it is given on the command line."""
    Path("overlay.json").write_text(json.dumps(config))
    return ["--configfile", "config/digits.yaml", "overlay.json"]


def rows(query):
    """Ask the database itself; nothing while it, or its table, is not there.

    Opened for writing, as a write that a kill cut off must be rolled back before anything can be read.
    """
    try:
        with contextlib.closing(sqlite3.connect("file:mlflow.db?mode=rw", uri=True, timeout=60)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if not str(error).startswith(("no such table", "unable to open")):
            raise
        return []


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[str]:
    """Run e.g. ``mlflow ui`` in a folder, without any of its variables, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + PATIENCE
        while not _answers(address):
            words = (folder / "server.log").read_text()[-2000:]
            assert server.poll() is None and time.monotonic() < until, words
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers are in its group
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
