"""How a cell's training ended: ``training.json`` and ``train.jsonl``, whoever trained it.

The pipeline's own training writes them, and so may a rule of somebody's own (docs/extending.md). Every stage reads
them here, so what is wrong in one is said in one line, by whichever stage comes first.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json, read_json_lines
from targetwise.schema import fault, read_yaml

SCHEMA = Path("workflow/schemas/training.schema.yaml")
CURVE_SCHEMA = Path("workflow/schemas/curve.schema.yaml")

REMEDY = "workflow/scripts/publish.py writes it right (docs/extending.md)"


def read_outcome(path: Path) -> dict[str, Any]:
    """Read a ``training.json``; ``workflow/schemas/training.schema.yaml`` says what is in it.

    Raises:
        UserError: if it is missing or damaged, or does not hold what it must.
    """
    content: dict[str, Any] = read_json(path)
    check_outcome(content, path)
    return content


def find_outcome(path: Path) -> dict[str, Any] | None:
    """Read a ``training.json`` that may not be there yet, among thousands: it is only asked for what it must hold.

    Returns:
        Its content; None while it is not there or not whole.

    Raises:
        UserError: if it lacks something.
    """
    try:
        content: dict[str, Any] = read_json(path)
    except (UserError, OSError):
        return None
    if not isinstance(content, dict) or not _required() <= content.keys():
        check_outcome(content, path)
    return content


def check_outcome(content: Any, path: Path) -> None:
    """Hold the content of the ``training.json`` at ``path`` against the schema.

    Raises:
        UserError: naming the first thing that is wrong, and what would be right.
    """
    found = fault(content, SCHEMA)
    if found:
        raise UserError(f"{path}: {found}; {REMEDY}")


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Read a ``train.jsonl``; ``workflow/schemas/curve.schema.yaml`` says what its lines hold.

    Raises:
        UserError: if a line is damaged or does not hold what it must.
        FileNotFoundError: if there is no such file.
    """
    lines = read_json_lines(path)
    check_curve(lines, path)
    return lines


def check_curve(lines: Iterable[Any], path: Path, *, every_value: bool = False) -> None:
    """Hold the lines of a curve against the schema.

    Args:
        lines: of the file at ``path``.
        path: for the message.
        every_value: whether to look at all values; otherwise at one line of each combination of names and types,
            which takes a hundredth of the time.

    Raises:
        UserError: naming the first line that is wrong, and what would be right.
    """
    before, seen = 0, set()
    for number, line in enumerate(lines, 1):
        shape = tuple((name, type(value)) for name, value in line.items()) if isinstance(line, dict) else None
        if every_value or shape not in seen:
            found = fault(line, CURVE_SCHEMA)
            if found:
                raise UserError(f"{path}, line {number}: {found}")
            seen.add(shape)
        if line["step"] <= before:
            raise UserError(
                f"{path}, line {number}: step is {line['step']}, and before it is {before}; steps must increase"
            )
        before = line["step"]


@cache
def _required() -> frozenset[str]:
    return frozenset(read_yaml(SCHEMA)["required"])
