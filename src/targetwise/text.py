"""Words and tables for a terminal, and what is written into a page."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from targetwise.errors import UserError

#: From low to high.
BARS = "▁▂▃▄▅▆▇█"


def aligned(rows: Sequence[Sequence[str]], pad: Callable[[str, int], str] = str.ljust) -> list[str]:
    """Return a line for each row, with columns of one width; ``str.rjust`` suits numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]


def counted(count: int, what: str, verb: str = "") -> str:
    """Return e.g. ``1 seed`` or ``1,285 seeds``, and with the verb ``are`` also ``1 seed is`` or ``2 seeds are``.

    Args:
        count: of them.
        what: a noun whose plural ends in s.
        verb: ``are`` or ``were``, or none.
    """
    one = count == 1
    verb = {"are": "is", "were": "was"}[verb] if one and verb else verb
    return f"{count:,} {what}{'' if one else 's'} {verb}".rstrip()


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return e.g. ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def replaced(text: str, block: str, page: Path, begin: str, end: str) -> str:
    """Return the ``text`` of a page with ``block`` between its two marks, which are lines of their own.

    Raises:
        UserError: if the marks are not there.
    """
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"{page} must hold the line '{begin}' once, and '{end}' once after it")
    return text.partition(begin)[0] + f"{begin}\n\n{block}\n{end}" + text.partition(end)[2]


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """Return a curve of ``width`` characters on a logarithmic scale; what has no logarithm is a space.

    The scale spans at least a factor of four, so that values that hardly differ make a flat line.
    """
    if not values:
        return ""
    places = (round(index * (len(values) - 1) / (width - 1)) for index in range(width))
    shown = [values[place] for place in places]
    logs = [math.log(value) if value and 0 < value < math.inf else None for value in shown]
    known = [log for log in logs if log is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = max(high - low, math.log(4))
    low -= (span - (high - low)) / 2
    return "".join(" " if log is None else BARS[round((log - low) / span * 7)] for log in logs)
