"""A study's experiment in MLflow: runs are created, extended and ended there.

MLflow can add to a run but not take anything back, so each run carries a mark of what was written: a write that was
cut off is taken up again, and a run that would have to shrink is replaced.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from targetwise.tracking.run import Run, digest_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

CELL_TAG = "targetwise.cell"
#: What of a run was written: see :class:`Mark`.
MARK_TAG = "targetwise.imported"
#: On a server, whose results folder a run belongs to: another project may have a study of the same name there.
FOLDER_TAG = "targetwise.folder"

#: Tags that a run has at one time and not at another.
PASSING_TAGS = ("progress", "reason")

BATCH = 1000  # MLflow's limit for one request
DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest


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
        tags = {CELL_TAG: run.cell.name, MARK_TAG: Mark.of(run, len(run.points)).text(), **self.folder}
        return self.client.create_run(self.id, run_name=run.cell.name, start_time=run.start, tags=tags)

    def _extend(self, old: "MlflowRun", run: Run) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id, before, everything = old.info.run_id, Mark.read(old), len(run.points)
        mark = Mark.of(run, everything)
        if before != mark:
            self.client.set_tag(run_id, MARK_TAG, mark.text(), synchronous=True)
        tags = {
            **run.tags,
            "mlflow.source.name": "targetwise",
            **({"mlflow.source.git.commit": run.commit} if run.commit else {}),
        }
        params = [Param(name, value[:6000]) for name, value in run.parameters.items()]
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        # A point that is written twice stays one. Those of a write that was cut off may be there or not.
        done = before.points if before.content else 0
        for first in range(done, everything, BATCH) or [done]:
            metrics = [Metric(*point) for point in run.points[first : first + BATCH]]
            self.client.log_batch(run_id, metrics=metrics, params=params, tags=run_tags, synchronous=True)
            params, run_tags = [], []
        for name in PASSING_TAGS:
            if name in old.data.tags and name not in tags:
                self.client.delete_tag(run_id, name)
        if run.dataset:
            self.client.log_inputs(run_id, [_dataset_input(run)])
        self._upload(run_id, run)
        # An end cannot be taken back when a killed cell goes on: every run has one, its last known moment.
        self.client.set_terminated(run_id, run.state, run.end)
        self.client.set_tag(run_id, MARK_TAG, replace(mark, content=run.digest).text(), synchronous=True)

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
