"""MLflow: the one module that knows it.

Jobs write JSON lines and nothing else. This importer turns the files of a study into runs, with the time stamps of
the work itself. The database is a view: delete it, import again, and it is the same.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targetwise import cells
from targetwise.cells import Cell
from targetwise.diffusion.sampling import load_samples
from targetwise.files import canonical_json, read_json, read_json_lines, sha256_of_file, sha256_of_text
from targetwise.metric import rows
from targetwise.report.pictures import png, tile

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

#: Where plain `mlflow ui` looks when it is started in the project's root.
DEFAULT_URI = "sqlite:///mlflow.db"

CELL_TAG = "targetwise.cell"
#: Written last: a run without it was cut short, and is made anew.
CONTENT_TAG = "targetwise.content"

BATCH = 1000
GRID_COLUMNS, GRID_IMAGES, GRID_WIDTH = 16, 64, 640

#: What a line of train.jsonl says, and what MLflow calls it.
CURVES = ("loss", "gradient_norm", "clipped_share", "images_per_second", "memory_peak_bytes")


def import_study(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Bring MLflow into agreement with the files of a study.

    Args:
        config: the whole configuration; ``tracking.uri`` names a server, otherwise ``mlflow.db`` here is used.

    Returns:
        The names of the cells that were ``imported``, were there already (``unchanged``), or have no training
        yet (``waiting``).
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = (config.get("tracking") or {}).get("uri") or DEFAULT_URI
    done: dict[str, list[str]] = {"imported": [], "unchanged": [], "waiting": []}
    with _alone():
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(config["study"])
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(config["study"])
        runs = _runs_by_cell(client, experiment_id)
        for cell in cells.grid(config):
            if not (cell.folder / "training.json").exists():
                done["waiting"].append(cell.name)
                continue
            content = _content(cell)
            old = runs.get(cell.name, [])
            if [run.data.tags.get(CONTENT_TAG) for run in old] == [content]:
                done["unchanged"].append(cell.name)
                continue
            for run in old:
                client.delete_run(run.info.run_id)
            _import_cell(client, experiment_id, cell, config, content)
            done["imported"].append(cell.name)
    return done


@contextmanager
def _alone() -> Iterator[None]:
    """Let one importer work at a time: several that open a fresh database at once all crash in its migrations."""
    cells.RESULTS.mkdir(exist_ok=True)
    with (cells.RESULTS / ".tracking.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _runs_by_cell(client: "MlflowClient", experiment_id: str) -> dict[str, list["Run"]]:
    found: dict[str, list[Run]] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=BATCH, page_token=token)
        for run in page:
            found.setdefault(run.data.tags.get(CELL_TAG, ""), []).append(run)
        token = page.token
        if not token:
            return found


def _files(cell: Cell) -> list[Path]:
    """Return the files that a cell's run is made of."""
    return [
        cell.folder / "cell.json",
        cell.folder / "train.jsonl",
        cell.folder / "training.json",
        *sorted((cell.folder / "fid").glob("*/draw*.json")),
    ]


def _content(cell: Cell) -> str:
    return sha256_of_text(canonical_json([[path.name, sha256_of_file(path)] for path in _files(cell)]))


def _import_cell(
    client: "MlflowClient", experiment_id: str, cell: Cell, config: Mapping[str, Any], content: str
) -> None:
    from mlflow.entities import Param

    specification = read_json(cell.folder / "cell.json")
    training = read_json(cell.folder / "training.json")
    lines = read_json_lines(cell.folder / "train.jsonl")
    ended = _milliseconds(training["finished_at"])
    run = client.create_run(
        experiment_id,
        run_name=cell.name,
        start_time=ended - _milliseconds(training["seconds"]),
        tags={
            CELL_TAG: cell.name,
            "parameterization": cell.parameterization,
            "scale": cell.scale,
            "seed": str(cell.seed),
            "status": training["status"],
            **({"reason": training["reason"]} if training["reason"] else {}),
        },
    )
    run_id = run.info.run_id
    parameters = [Param(name, value[:6000]) for name, value in _flat(specification).items()]
    metrics = [*_curves(lines), *_results(cell, ended)]
    client.log_batch(run_id, params=parameters)
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + BATCH])
    client.log_artifact(run_id, str(cell.folder / "training.json"))
    _log_pictures(client, run_id, cell)
    client.set_terminated(run_id, "FINISHED" if training["status"] == "finished" else "FAILED", end_time=ended)
    client.set_tag(run_id, CONTENT_TAG, content)


def _curves(lines: list[dict[str, Any]]) -> list[Any]:
    from mlflow.entities import Metric

    metrics = []
    for line in lines:
        when, step = _milliseconds(line["time"]), line["step"]
        values = {key: line[key] for key in CURVES}
        values |= {f"loss_quarter_{index + 1}": value for index, value in enumerate(line["loss_by_quarter"])}
        metrics += [Metric(key, value, when, step) for key, value in values.items() if value is not None]
    return metrics


def _results(cell: Cell, when: int) -> list[Any]:
    from mlflow.entities import Metric

    metrics = []
    for path in sorted((cell.folder / "fid").glob("*/draw*.json")):
        row = rows.read_row(path)
        if row["value"] is not None:
            name = re.sub(r"\W+", "_", row["metric"]).strip("_")
            metrics += [Metric(name, row["value"], when, row["draw"]), Metric("KID", row["kid"], when, row["draw"])]
    return metrics


def _log_pictures(client: "MlflowClient", run_id: str, cell: Cell) -> None:
    for path in sorted((cell.folder / "samples").glob("*/draw*.npz")):
        images = load_samples(path)[:GRID_IMAGES]
        if not len(images):
            continue
        zoom = max(1, GRID_WIDTH // (GRID_COLUMNS * images.shape[2]))
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / f"{path.parent.name}-{path.stem}.png"
            picture.write_bytes(png(tile(images, GRID_COLUMNS, zoom)))
            client.log_artifact(run_id, str(picture), "samples")


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested mappings as ``training.steps``: text."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
