"""Rows on disk: one measured number each, never without what makes it comparable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json, write_json
from targetwise.recipe.schema import violations

SCHEMA = Path("workflow/schemas/row.schema.yaml")


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row, if it holds all that a row must.

    Raises:
        UserError: if something is missing or of the wrong kind; nothing is written then.
    """
    check_row(row, str(path))
    write_json(path, row)


def read_row(path: Path) -> dict[str, Any]:
    """Read a row and hold it against the schema.

    Raises:
        UserError: if it is missing, damaged or incomplete.
    """
    row: dict[str, Any] = read_json(path)
    check_row(row, str(path))
    return row


def check_row(row: Mapping[str, Any], where: str) -> None:
    """Raise a UserError naming what the schema misses in ``row``."""
    for error in violations(row, SCHEMA)[:1]:
        place = ".".join(str(part) for part in error.absolute_path)
        raise UserError(f"{where}: not a whole row: {place + ': ' if place else ''}{error.message}")
