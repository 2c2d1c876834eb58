"""How a cell's training ended: ``training.json`` and ``train.jsonl``, whatever trained it.

The pipeline's own training writes them, and so may a user's own rule (docs/extending.md). Every stage reads
them here, so what is wrong in one is said in one line, by whichever stage comes first.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json, read_json_lines
from targetwise.recipe.schema import fault, read_yaml

SCHEMA = Path("workflow/schemas/training.schema.yaml")
CURVE_SCHEMA = Path("workflow/schemas/curve.schema.yaml")

REMEDY = "workflow/scripts/publish.py writes it correctly (docs/extending.md)"


def read_outcome(path: Path) -> dict[str, Any]:
    """Read a ``training.json``; ``workflow/schemas/training.schema.yaml`` says what is in it.

    Raises:
        UserError: if it is missing or damaged, or does not hold what it must.
    """
    content: dict[str, Any] = read_json(path)
    check_outcome(content, path)
    return content


def find_outcome(path: Path) -> dict[str, Any] | None:
    """Read a ``training.json`` that may not exist yet. There are thousands, so only what it must hold is checked.

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


def marks(outcome: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before comparing numbers of the trained model, a phrase each."""
    return [
        f"continued after step {each['step']:,} with {', '.join(each['differences'])}"
        for each in outcome.get("continued", [])
    ]


def clipped_share(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of clipped steps of a whole curve; None if no line of it says one.

    Args:
        lines: of ``train.jsonl``. Each counts by its steps: the last window is often shorter than the others.
    """
    before = [0, *(line["step"] for line in lines)]
    known = [
        (line["step"] - first, line["clipped_share"])
        for first, line in zip(before, lines, strict=False)
        if "clipped_share" in line
    ]
    steps = sum(count for count, _ in known)
    return math.fsum(count * share for count, share in known) / steps if known else None


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
                f"{path}, line {number}: step is {line['step']}, after step {before}; steps must increase"
            )
        before = line["step"]


@cache
def _required() -> frozenset[str]:
    return frozenset(read_yaml(SCHEMA)["required"])
