"""``probe.json``: what the probes of a study found of a cell's trained network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.cells.grid import Cell
from targetwise.errors import UserError
from targetwise.files import read_json, remedy, write_json
from targetwise.recipe.schema import fault

NAME = "probe.json"
SCHEMA = Path("workflow/schemas/probe.schema.yaml")


def read(cell: Cell) -> tuple[dict[str, float], str | None]:
    """Return the numbers of a cell by name, and otherwise none and why there are none.

    Raises:
        UserError: if its record is damaged.
    """
    path = cell.folder / NAME
    if not path.exists():
        return {}, f"{cell.name} is not probed"
    record = read_record(path)
    return dict(record["values"] or {}), record["reason"]


def read_record(path: Path) -> dict[str, Any]:
    """Read a ``probe.json``; ``workflow/schemas/probe.schema.yaml`` says what is in it.

    Raises:
        UserError: if it is missing or damaged.
    """
    content: dict[str, Any] = read_json(path)
    found = fault(content, SCHEMA)
    if found:
        raise UserError(f"{path} is damaged: {found}; {remedy(path)}")
    return content


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a ``probe.json``, if it holds all that it must.

    Raises:
        UserError: if something is missing or of the wrong kind; nothing is written then.
    """
    found = fault(record, SCHEMA)
    if found:
        raise UserError(f"{path}: {found}")
    write_json(path, record)
