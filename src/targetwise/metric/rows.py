"""Rows on disk: one measured number each, never without what makes it comparable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from targetwise import kinds
from targetwise.errors import UserError
from targetwise.files import read_json, sha256_of_file, sha256_of_json, write_json
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


def row_key(options: Mapping[str, Any], reference: Mapping[str, Any], *measured: Any) -> str:
    """Return the digest of all that decides a row; a row with another key is measured again.

    Args:
        options: the content of ``metric.json``, with the protocol numbers; the files of its metrics count as well.
        reference: its facts. Their digests count; where and when it was made does not.
        measured: what is measured, as plain values.
    """
    files = [sha256_of_file(kinds.file_of("metrics", name)) for name in options["names"]]
    return sha256_of_json([options, *files, reference["images_sha256"], reference["extractor_sha256"], *measured])


def draw_key(
    specification: Mapping[str, Any],
    samples: Mapping[str, Any],
    sampler: str,
    options: Mapping[str, Any],
    reference: Mapping[str, Any],
) -> str:
    """Return the key of the row of a cell's draw; see :func:`row_key`.

    Args:
        specification: the content of ``cell.json``.
        samples: the facts beside the draw's images.
        sampler: the name of the samples' folder, e.g. ``ddim-50``.
        options: the content of ``metric.json``.
        reference: its facts.
    """
    made = [samples[name] for name in ("draw", "status", "reason", "samples_sha256", "model_sha256")]
    threads = specification["training"]["threads"]  # their number can change the last bit of a feature
    return row_key(options, reference, specification["cell"], threads, sampler, *made)


def write_row_once(folder: Path, job: str, key: str, output: Path, row: Callable[[Parts], Mapping[str, Any]]) -> None:
    """Write the row that ``row`` returns, or the one that an earlier run has finished; see :func:`once`.

    Args:
        folder: of the cell, or whatever else the row is of.
        job: e.g. ``fid-ddim-50-draw0``.
        key: of the row, which records it; see :func:`row_key`.
        output: the row's path.
        row: measures; the parts are those that an earlier run has left.
    """

    def make(kept: Kept, parts: Parts) -> None:
        write_row(kept.path(output), {**row(parts), "key": key})

    once(folder, job, key, [output], make)


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
