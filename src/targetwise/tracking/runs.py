"""What the files of a study say of each cell, as the run of an experiment.

A run says what can be said of its cell at the time: while it trains, the curve up to the last saved state, which no
kill takes back; then the whole curve, the measured values and the pictures. So it only grows.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell, Draw
from targetwise.cells.agreement import Agreement
from targetwise.cells.outcome import check_outcome, find_outcome, read_curve
from targetwise.cells.rows import check_row
from targetwise.files import read_json_lines, read_whole, sha256_of_file
from targetwise.operations.status import Standing, saved_step, written
from targetwise.recipe import variants
from targetwise.tracking.run import Artifact, Dataset, Point, Run, digest_of

RUNNING, SCHEDULED, FINISHED, FAILED, KILLED = "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"

#: What a line of train.jsonl says, and under which name it is shown; a name's first part is its section.
CURVES = {
    "loss": "loss",
    "gradient_norm": "gradient_norm",
    "clipped_share": "clipped_share",
    "images_per_second": "system/images_per_second",
    "memory_peak_bytes": "system/memory_peak_bytes",
}


class Runs:
    """The runs of a study, each read from its cell's files when it is asked for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Describe the cells of the whole configuration ``config``."""
        self._config = config
        self._study = cells.RESULTS / config["study"]
        self._agreement = Agreement(config)
        self._specifications = self._agreement.specifications
        self._dataset = _dataset(config["data"]["dataset"])

    def files(self, cell: Cell) -> list[Path]:
        """Return the files that a cell's run is read from: while none of them changes, neither does the run."""
        names = ["training.json", "manifest.json", "train.jsonl", "state/train", "state/train/train.jsonl"]
        for draw in self._draws(cell):
            names += [f"{folder}/{draw.name}.json" for folder in ("samples", "fid")]
        return [cell.folder / name for name in names]

    def describe(self, standing: Standing) -> Run | None:
        """Return a cell's run, or None if nothing of its present specification was begun.

        Raises:
            UserError: if one of its files is damaged.
        """
        cell = standing.cell
        # In this order: a training publishes its result before it removes its state.
        saved, logged = saved_step(cell), _lines_in_training(cell)
        path = cell.folder / "training.json"
        outcome = find_outcome(path)
        if outcome is None or not self._agreement.is_trained(cell, outcome):
            outcome = None
            # What follows the last saved state is trained again after a kill.
            lines = [line for line in logged if line["step"] <= saved]
        else:
            check_outcome(outcome, path)
            lines = logged = _curve(cell.folder / "train.jsonl")
        specification = self._specifications[cell.folder / "cell.json"]
        span = _span(standing, outcome, logged, specification["training"]["global_batch"])
        if span is None:
            return None
        rows = list(self._rows(cell, outcome)) if outcome else []
        draws, options = self._draws(cell), self._options(cell)
        state = _state(standing, outcome, rows)
        start, end = span
        return Run(
            cell=cell,
            specification=digest_of([standing.key, options]),
            state=state,
            start=start,
            end=end,
            commit=outcome["environment"]["code"]["commit"] if outcome else None,
            tags=_tags(standing, state, rows),
            parameters=_parameters(cell, {**specification, **options}),
            points=[*_curves(lines), *_results(rows, draws, end)],
            dataset=self._dataset,
            artifacts=list(self._artifacts(cell, outcome)) if outcome else [],
        )

    def _draws(self, cell: Cell) -> list[Draw]:
        return cells.draws(self._config, cell.parameterization)

    def _options(self, cell: Cell) -> dict[str, Any]:
        """Return what decides the cell's samples and rows; with one sampler, its settings are ``sampling``."""
        samplers = variants.samplings(self._config, cell.parameterization)
        found = {"metric": self._specifications[self._study / "metric.json"]}
        for sampler in samplers:
            path = cells.sampling_file(self._study, cell.parameterization, sampler)
            found["sampling" if len(samplers) == 1 else f"sampling.{sampler}"] = self._specifications[path]
        return found

    def _rows(self, cell: Cell, outcome: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the measured rows, in the order of the draws, up to the first that is missing."""
        for draw in self._draws(cell):
            path = cell.folder / "fid" / f"{draw.name}.json"
            row = read_whole(path)
            if row is None or not self._agreement.is_measured(cell, draw, row, outcome):
                return
            check_row(row, str(path))
            yield row

    def _artifacts(self, cell: Cell, outcome: Mapping[str, Any]) -> Iterator[Artifact]:
        for name in ("training.json", "manifest.json"):
            path = cell.folder / name
            if path.exists():
                yield Artifact(name, path, sha256_of_file(path))
        for draw in self._draws(cell):
            path = cell.folder / "samples" / f"{draw.name}.npz"
            facts = read_whole(path.with_suffix(".json"))
            if facts and self._agreement.is_sampled(cell, draw, facts, outcome) and facts["images"]:
                yield Artifact(f"samples/{draw.name.replace('/', '-')}.png", path, facts["samples_sha256"])


def _dataset(name: str) -> Dataset | None:
    manifest = read_whole(Path("data") / name / "manifest.json")
    if manifest is None:
        return None
    train = manifest["splits"]["train"]
    return Dataset(name, train["sha256"], train["shape"][0])


def _lines_in_training(cell: Cell) -> list[dict[str, Any]]:
    """Return what a training that has not ended has logged, if it is of the present specification."""
    path = cell.folder / "state/train/train.jsonl"
    return _lines(path) if written(path) >= written(cell.folder / "cell.json") else []


def _curve(path: Path) -> list[dict[str, Any]]:
    try:
        return read_curve(path)
    except FileNotFoundError:
        return []


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_json_lines(path)
    except FileNotFoundError:  # not yet, or just removed
        return []


def _span(
    standing: Standing, outcome: Mapping[str, Any] | None, logged: list[dict[str, Any]], global_batch: int
) -> tuple[int, int] | None:
    """Return the milliseconds of a run's first and last known moment; None if there is none."""
    if logged:
        first, last = logged[0], logged[-1]
        rate = first.get("images_per_second")
        before = first["step"] * global_batch / rate if rate else 0.0
        return _milliseconds(first["time"] - before), _milliseconds(
            outcome["finished_at"] if outcome else last["time"]
        )
    if outcome:
        return _milliseconds(outcome["finished_at"] - outcome["seconds"]), _milliseconds(outcome["finished_at"])
    if standing.state == "failed":
        when = _milliseconds(written(standing.cell.folder / "log/train.log"))
        return when, when
    return None


def _state(standing: Standing, outcome: Mapping[str, Any] | None, rows: list[dict[str, Any]]) -> str:
    if standing.state == "running":
        return RUNNING
    if standing.state == "diverged" or any(row["status"] == "diverged" for row in rows):
        return FAILED
    if standing.state == "done":
        return FINISHED
    # A process that ends by itself takes its heartbeat away, whatever it ends with.
    left_behind = not outcome and (standing.cell.folder / "state/train/heartbeat.json").exists()
    if standing.state == "failed" and not left_behind:
        return FAILED
    return SCHEDULED if outcome else KILLED


def _tags(standing: Standing, state: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    cell = standing.cell
    tags = {"parameterization": cell.parameterization, "scale": cell.scale, "seed": str(cell.seed)}
    tags["status"] = "killed" if state == KILLED else standing.state
    if state == FAILED:
        tags["reason"] = next((row["reason"] for row in rows if row["reason"]), standing.detail)
    elif standing.detail:
        tags["progress"] = standing.detail
    return tags


def _parameters(cell: Cell, specification: Mapping[str, Any]) -> dict[str, str]:
    """Return all that decides the result as ``training.steps``: text."""
    axes = {"parameterization": cell.parameterization, "scale": cell.scale, "seed": cell.seed}
    return _flat({**axes, **{key: value for key, value in specification.items() if key != "cell"}})


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _curves(lines: list[dict[str, Any]]) -> Iterator[Point]:
    for line in lines:
        # A training by somebody's own rule may log less.
        values = {shown: line.get(key) for key, shown in CURVES.items()}
        quarters = enumerate(line.get("loss_by_quarter", []), 1)
        values |= {f"loss_by_time/quarter_{index}": value for index, value in quarters}
        when = _milliseconds(line["time"])
        yield from (Point(name, value, when, line["step"]) for name, value in values.items() if value is not None)


def _results(rows: list[dict[str, Any]], draws: list[Draw], when: int) -> Iterator[Point]:
    """Yield each of several draws' values and, once all are measured, their means: what the runs' table shows.

    With several samplers, each has metrics of its own, ``<sampler>/<metric>``.
    """
    counts = Counter(draw.sampler for draw in draws)
    for sampler, count in counts.items():
        prefix = f"{sampler}/" if len(counts) > 1 else ""
        measured = [row for row in rows if row["sampler"] == sampler and row["value"] is not None]
        for row in measured if count > 1 else []:
            for name, value in _values(row).items():
                yield Point(f"draws/{prefix}{name}", value, when, row["draw"])
        if len(measured) == count:
            for name in _values(measured[0]):
                yield Point(prefix + name, sum(_values(row)[name] for row in measured) / count, when, 0)


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a finished row: the first one by its title, the others by their names."""
    titles = {row["name"]: re.sub(r"\W+", "_", row["metric"]).strip("_")}
    return {titles.get(name, name): value for name, value in row["values"].items()}


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
