"""Brings MLflow into agreement with a study's files.

Jobs write JSON lines and nothing else. This importer writes the runs that the files describe (runs.py) into an
experiment (experiment.py), with the time stamps of the work itself, during a run of the pipeline or after it. A run
is extended in place, however often the importer is cut off. The database is a view: delete it, import again, and it
is the same.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise import cells
from targetwise.cells import Cell
from targetwise.errors import UserError
from targetwise.operations import status
from targetwise.tracking.experiment import FOLDER_TAG, Experiment
from targetwise.tracking.runs import Runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: Where plain `mlflow ui` looks when it is started in the project's root.
DEFAULT_URI = "sqlite:///mlflow.db"
UI = "http://127.0.0.1:5000"

Done = dict[str, list[str]]


class Importer:
    """Writes a study's runs; one that works again and again looks only at cells whose files have changed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepare to import the study of the whole configuration ``config``; nothing is opened yet.

        ``tracking.uri`` names a server; otherwise ``mlflow.db`` here is used, whatever the environment says.
        """
        self.config = config
        uri = (config.get("tracking") or {}).get("uri")
        self.uri = uri or DEFAULT_URI
        self.is_shared = bool(uri)
        #: Where a browser shows the runs; known after the first import.
        self.page = ""
        self._client: MlflowClient | None = None
        self._seen: dict[Cell, tuple[Any, str]] = {}

    def update(self) -> Done:
        """Bring MLflow into agreement with the study's files.

        Returns:
            The names of the cells that were ``imported``, were there already (``unchanged``), or of which nothing was
            begun (``waiting``).

        Raises:
            UserError: if a file is damaged, or MLflow cannot be written.
        """
        return self._update(status.standings(self.config))

    def follow(self, every: float) -> Iterator[Done]:
        """Import every ``every`` seconds until no cell can move any more, and yield what each time has done."""
        while True:
            found = status.standings(self.config)
            yield self._update(found)
            if not status.can_move(found):
                return
            time.sleep(every)

    def _update(self, found: list[status.Standing]) -> Done:
        runs = Runs(self.config)
        done: Done = {"imported": [], "unchanged": [], "waiting": []}
        changed = []
        for standing in found:
            signature = standing, [_stamp(path) for path in runs.files(standing.cell)]
            seen, outcome = self._seen.get(standing.cell, (None, ""))
            if seen == signature:
                done[outcome].append(standing.cell.name)
            else:
                changed.append((standing, signature))
        if changed:
            with _alone() as folder, self._in_one_line():
                experiment = self._experiment(folder)
                for standing, signature in changed:
                    run = runs.describe(standing)
                    written = run is not None and experiment.write(run)
                    outcome = "unchanged" if run else "waiting"
                    done["imported" if written else outcome].append(standing.cell.name)
                    self._seen[standing.cell] = signature, outcome
        return done

    def _experiment(self, folder: str) -> "Experiment":
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # of every run on a server
        from mlflow.tracking import MlflowClient

        self._client = self._client or MlflowClient(tracking_uri=self.uri)
        experiment = Experiment(self._client, self.config["study"], {FOLDER_TAG: folder} if self.is_shared else {})
        server = self.uri.rstrip("/") if self.uri.startswith("http") else UI
        self.page = f"{server}/#/experiments/{experiment.id}/runs?workflowType=machine_learning"
        return experiment

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Say in one line what MLflow, its database or its server threw."""
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError) as error:
            summary = (str(error) or type(error).__name__).splitlines()[0]
            remedy = (
                "start the server, or leave tracking.uri out"
                if self.is_shared
                else "if it is damaged or another MLflow's, delete mlflow.db: `targetwise track` makes it again"
            )
            raise UserError(f"MLflow at {self.uri} cannot be written ({summary}); {remedy}") from error


@contextmanager
def _alone() -> Iterator[str]:
    """Let one importer of this results folder work at a time, and yield the name by which a server knows the folder.

    Several that open a fresh database at once all crash in its migrations.
    """
    cells.RESULTS.mkdir(exist_ok=True)
    with (cells.RESULTS / ".tracking.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        name = file.read()
        if not name:
            name = uuid.uuid4().hex
            file.write(name)
            file.flush()
        yield name


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size
