"""The table of all cells of a study, a row for each draw.

It is built from the grid in the configuration, never from what happens to be on disk, so a cell that was not
made is named as missing.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from targetwise import cells
from targetwise.cells import rows
from targetwise.cells.agreement import Agreement
from targetwise.cells.outcome import marks, read_outcome
from targetwise.errors import UserError
from targetwise.files import read_json, remedy
from targetwise.recipe import comparisons, variants
from targetwise.recipe.config import variant

TABLE_COLUMNS = {
    "parameterization": "object",
    "scale": "object",
    "sampling": "object",
    "setting": "object",
    "seed": "int64",
    "draw": "int64",
    "status": "object",
    "metric": "object",
    "value": "float64",
    "error": "float64",
    "n": "Int64",
    "mode": "object",
    "implementation": "object",
    "sampler": "object",
    "steps": "Int64",
    "final_loss": "float64",
    "clipped_share": "float64",
    "reason": "object",
    "marks": "object",
    "extractor_sha256": "object",
    "reference_sha256": "object",
    "samples_sha256": "object",
    "model_sha256": "object",
}

#: Rows of one setting that differ in one of these measure different things.
COMPARABLE = ("metric", "mode", "implementation", "n", "extractor_sha256", "reference_sha256")


def table(config: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row for every cell and draw of the grid.

    Its columns are those of :data:`TABLE_COLUMNS`, one by its name for every further number of the metrics
    (``kid``), and one for every field of the recipe in which rows differ, named as in the configuration
    (``target``, ``training.learning_rate``) and listed in ``attrs["fields"]``. Rows are compared within a
    ``setting``: a scale, and where the grid names samplings, one of them. ``status`` is finished, diverged or
    missing; ``value`` is NaN unless finished. A cell whose ``training.json`` is missing or damaged is missing,
    because its row cannot be said to be of its present model.

    Raises:
        UserError: if rows are not comparable, or one of them is damaged or of another cell.
    """
    points = [(cell, draw) for cell in cells.grid(config) for draw in cells.draws(config, cell.parameterization)]
    named = bool(config["grid"].get("samplings"))
    agreement = Agreement(config)
    trainings = {cell: _training(cell) for cell in cells.grid(config)}
    records = [_record(agreement, cell, draw, trainings[cell], named) for cell, draw in points]
    _mark_formats(config, records, [trainings[cell] for cell, _ in points])
    others = _further_numbers(config, [record.pop("values", {}) for record in records])
    frame = pd.DataFrame.from_records(records, columns=list(TABLE_COLUMNS)).astype(TABLE_COLUMNS)
    require_comparable(frame)
    fields = _differing(config, points)
    found = frame.join(others).join(fields)
    found.attrs["fields"] = list(fields)
    return found


def column_of(name: str) -> str:
    """Return the column of a further number of the metrics: its name, unless the table has such a column already."""
    return f"metric.{name}" if name in TABLE_COLUMNS else name


def _further_numbers(config: Mapping[str, Any], values: list[Mapping[str, float]]) -> pd.DataFrame:
    """Return what the metrics measured beside the first one's number, a column each; NaN where there is no number."""
    first, *others = config["metric"]["names"]
    names = [name for name in dict.fromkeys([*others, *(name for each in values for name in each)]) if name != first]
    numbers = [{name: each.get(name) for name in names} for each in values]
    frame = pd.DataFrame(numbers, columns=names, dtype="float64")
    return frame.rename(columns=column_of)


def _differing(config: Mapping[str, Any], points: list[tuple[cells.Cell, cells.Draw]]) -> pd.DataFrame:
    """Return the fields of the recipes in which rows differ, beside what the axes say already."""
    recipes = comparisons.recipes(config, partial(variant, config))
    fields = comparisons.differing(recipes)
    rows = [recipes[cell.parameterization, cell.scale, draw.sampler] for cell, draw in points]
    return pd.DataFrame([{field: row.get(field) for field in fields} for row in rows], columns=fields)


def _training(cell: cells.Cell) -> Mapping[str, Any] | UserError:
    """Return how a cell's training ended, or why nobody knows."""
    try:
        return read_outcome(cell.folder / "training.json")
    except UserError as error:
        return error


def _record(
    agreement: Agreement, cell: cells.Cell, of: cells.Draw, training: Mapping[str, Any] | UserError, named: bool
) -> dict[str, Any]:
    draw = of.number
    record: dict[str, Any] = {
        "parameterization": cell.parameterization,
        "scale": cell.scale,
        "sampling": of.sampler,
        "setting": f"{cell.scale}, {of.sampler}" if named else cell.scale,
        "seed": cell.seed,
        "draw": draw,
        "status": "missing",
    }
    path = cell.folder / "fid" / f"{of.name}.json"
    if not path.exists():
        return {**record, "reason": f"{path} was not made"}
    row = read_json(path)
    if [row.get(name) for name in ("cell", "sampler", "draw")] != [asdict(cell), of.sampler, draw]:
        found = f"{row.get('cell')}, {row.get('sampler')}, draw {row.get('draw')}"
        raise UserError(f"{path} is of another cell or draw ({found}); {remedy(path)}")
    if isinstance(training, UserError):
        return {**record, "reason": str(training)}
    if row.get("model_sha256") != training["model_sha256"]:
        # A run that is under way, or was stopped, has trained the cell again and not yet measured it.
        return {**record, "reason": f"{path} was measured on an earlier model of this cell"}
    if not (agreement.is_trained(cell, training) and agreement.is_measured(cell, of, row, training)):
        return {**record, "reason": f"{path} is of another configuration than the present one"}
    rows.check_row(row, str(path))
    record.update({key: row[key] for key in ("values", *TABLE_COLUMNS) if key in row and key not in record})
    return {
        **record,
        "status": row["status"],
        "error": row.get("errors", {}).get(row["name"]),
        "marks": "; ".join([*row["marks"], *_without_error(row), *marks(training)]),
        **{key: training.get(key) for key in ("steps", "final_loss", "clipped_share")},
    }


def _without_error(row: Mapping[str, Any]) -> list[str]:
    """Return why the value has no standard error; nothing for a row of before there were any."""
    reason = row.get("without_error", {}).get(row["name"])
    return [f"no standard error: {reason}"] if reason else []


def _mark_formats(
    config: Mapping[str, Any], records: list[dict[str, Any]], trainings: list[Mapping[str, Any] | UserError]
) -> None:
    """Mark the rows whose trainings used different number formats, or compiling, although the same was asked for."""
    told: list[tuple[dict[str, Any], str, str]] = []
    for record, training in zip(records, trainings, strict=True):
        if record["status"] != "missing" and not isinstance(training, UserError) and "formats" in training:
            options = variants.settings(config, record["parameterization"])["training"]
            asked, used = str((options["precision"], options["compile"])), training["formats"]
            words = f"trained in {used['precision']}{', compiled' if used['compile'] else ''}"
            told.append((record, asked, words))
    for record, asked, words in told:
        if any(other[1] == asked and other[2] != words for other in told):
            record["marks"] = "; ".join(filter(None, [record["marks"], words]))


def require_comparable(frame: pd.DataFrame) -> None:
    """Make sure that the finished rows of each setting measure the same thing.

    Raises:
        UserError: naming the column of :data:`COMPARABLE` in which they differ, and a row for each value.
    """
    for _, group in frame[frame["status"] == "finished"].groupby("setting", sort=False):
        _require_one_value(group)


def _require_one_value(finished: pd.DataFrame) -> None:
    for column in COMPARABLE:
        values = finished[column].unique()
        if len(values) > 1:
            examples = "; ".join(
                f"{first.parameterization}-{first.scale}-{first.seed} draw {first.draw} has {value}"
                for value in values
                for first in [next(finished[finished[column] == value].itertuples())]
            )
            raise UserError(f"the rows cannot be put in one table, because {column} differs: {examples}")
