"""Rows on disk: one measured number each, never without what makes it comparable."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_json, write_json
from targetwise.jobs.kept import Kept
from targetwise.jobs.once import once
from targetwise.jobs.parts import Parts
from targetwise.schema import violations

SCHEMA = Path("workflow/schemas/row.schema.yaml")


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row, if it holds all that a row must.

    Raises:
        UserError: if something is missing or of the wrong kind; nothing is written then.
    """
    check_row(row, str(path))
    write_json(path, row)


def write_row_once(
    folder: Path, job: str, decisive: Sequence[Any], output: Path, row: Callable[[Parts], Mapping[str, Any]]
) -> None:
    """Write the row that ``row`` returns, or the one that an earlier run has finished; see :func:`once`.

    Args:
        folder: of the cell, or whatever else the row is of.
        job: e.g. ``fid-ddim-50-draw0``.
        decisive: plain values; everything that decides the row.
        output: the row's path.
        row: measures; the parts are those that an earlier run has left.
    """

    def make(kept: Kept, parts: Parts) -> None:
        write_row(kept.path(output), row(parts))

    once(folder, job, sha256_of_json(decisive), [output], make)


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


def describe(facts: Mapping[str, Any]) -> str:
    """Return a reference's name for people, e.g. ``cifar10 train, first 2,000``."""
    first = f", first {facts['first']:,}" if facts["first"] is not None else ""
    return f"{facts['dataset']} {facts['split']}{first}"
