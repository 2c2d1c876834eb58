"""MLflow: the one module that knows it.

Jobs write JSON lines and nothing else. This importer brings an experiment into agreement with the runs that a study's
files describe (runs.py), with the time stamps of the work itself, during a run of the pipeline or after it. A run is
extended in place, however often the importer is cut off. The database is a view: delete it, import again, and it is
the same.
"""

import fcntl
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise import cells
from targetwise.cells import Cell
from targetwise.errors import UserError
from targetwise.operations import status
from targetwise.tracking.runs import Run, Runs, digest_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

#: Where plain `mlflow ui` looks when it is started in the project's root.
DEFAULT_URI = "sqlite:///mlflow.db"
UI = "http://127.0.0.1:5000"

CELL_TAG = "targetwise.cell"
#: What of a run was written: see :class:`Mark`.
MARK_TAG = "targetwise.imported"
#: On a server, whose results folder a run belongs to: another project may have a study of the same name there.
FOLDER_TAG = "targetwise.folder"

#: Tags that a run has at one time and not at another.
PASSING_TAGS = ("progress", "reason")

BATCH = 1000  # MLflow's limit for one request
DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest

Done = dict[str, list[str]]


@dataclass(frozen=True)
class Mark:
    """What of a run was written, kept as one of its tags.

    ``points`` and ``points_sha256`` are set before the first of these points is written, ``content`` (the digest of
    the whole run) after the last thing is: without it the writing was cut off.
    """

    specification: str
    points: int
    points_sha256: str
    content: str = ""

    @staticmethod
    def of(run: Run, points: int, content: str = "") -> "Mark":
        """Return the mark of the first ``points`` points of a run."""
        return Mark(run.specification, points, digest_of(run.points[:points]), content)

    @staticmethod
    def read(run: "MlflowRun") -> "Mark":
        """Return the mark of a run that was written; nothing was of one whose tag somebody has changed."""
        try:
            return Mark(**json.loads(run.data.tags[MARK_TAG]))
        except (KeyError, TypeError, ValueError):
            return Mark("", 0, "")

    def text(self) -> str:
        """Return the tag's value."""
        return json.dumps(asdict(self))


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


class Experiment:
    """A study's experiment."""

    def __init__(self, client: "MlflowClient", study: str, folder: Mapping[str, str]) -> None:
        """Open or create it; only the runs with the tag ``folder`` are this project's."""
        self.client = client
        self.folder = dict(folder)
        found = client.get_experiment_by_name(study)
        if found is None:
            note = f"Made by `targetwise track` from the files in results/{study}; changes here are not read back."
            self.id = client.create_experiment(study, tags={"mlflow.note.content": note})
        else:
            self.id = found.experiment_id
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(self.id)
        self.runs = self._runs_by_cell()

    def write(self, run: Run) -> bool:
        """Bring one run into agreement; return whether anything had to be written."""
        kept = None
        for old in self.runs.get(run.cell.name, []):
            if kept is None and _continues(old, run):
                kept = old
            else:
                self.client.delete_run(old.info.run_id)
        if kept is None:
            kept = self._create(run)
        if Mark.read(kept).content == run.digest:
            return False
        self._extend(kept, run)
        return True

    def _runs_by_cell(self) -> dict[str, list["MlflowRun"]]:
        found: dict[str, list[MlflowRun]] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.id], max_results=BATCH, order_by=["attributes.start_time"], page_token=token
            )
            for run in page:
                if self.folder.items() <= run.data.tags.items():
                    found.setdefault(run.data.tags.get(CELL_TAG, ""), []).append(run)
            token = page.token
            if not token:
                return found

    def _create(self, run: Run) -> "MlflowRun":
        tags = {CELL_TAG: run.cell.name, MARK_TAG: Mark.of(run, 0).text(), **self.folder}
        return self.client.create_run(self.id, run_name=run.cell.name, start_time=run.start, tags=tags)

    def _extend(self, old: "MlflowRun", run: Run) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id, before, everything = old.info.run_id, Mark.read(old), len(run.points)
        tags = {
            **run.tags,
            "mlflow.source.name": "targetwise",
            **({"mlflow.source.git.commit": run.commit} if run.commit else {}),
            MARK_TAG: Mark.of(run, everything).text(),
        }
        self.client.log_batch(
            run_id,
            params=[Param(name, value[:6000]) for name, value in run.parameters.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
            synchronous=True,
        )
        for name in PASSING_TAGS:
            if name in old.data.tags and name not in tags:
                self.client.delete_tag(run_id, name)
        # A point that is written twice stays one. Those of a write that was cut off may be there or not.
        for first in range(before.points if before.content else 0, everything, BATCH):
            metrics = [Metric(*point) for point in run.points[first : first + BATCH]]
            self.client.log_batch(run_id, metrics=metrics, synchronous=True)
        if run.dataset:
            self.client.log_inputs(run_id, [_dataset_input(run)])
        self._upload(run_id, run)
        # An end cannot be taken back when a killed cell goes on: every run has one, its last known moment.
        self.client.set_terminated(run_id, run.state, run.end)
        self.client.set_tag(run_id, MARK_TAG, Mark.of(run, everything, run.digest).text(), synchronous=True)

    def _upload(self, run_id: str, run: Run) -> None:
        if not run.artifacts:
            return
        with tempfile.TemporaryDirectory() as folder:
            for artifact in run.artifacts:
                path = Path(folder) / artifact.name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(artifact.content())
            self.client.log_artifacts(run_id, folder)


def _continues(old: "MlflowRun", run: Run) -> bool:
    """Return whether what was written of ``old`` is the beginning of ``run``: MLflow can add, but not take back."""
    mark = Mark.read(old)
    return mark == Mark.of(run, mark.points, mark.content) and old.info.start_time == run.start


def _dataset_input(run: Run) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    assert run.dataset is not None
    dataset = Dataset(
        name=run.dataset.name,
        digest=run.dataset.sha256[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": f"data/{run.dataset.name}/dataset.npz"}),
        profile=json.dumps({"images": run.dataset.images, "sha256": run.dataset.sha256}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])


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
