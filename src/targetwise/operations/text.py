"""Tables for a terminal."""

from collections.abc import Callable, Sequence


def aligned(rows: Sequence[Sequence[str]], pad: Callable[[str, int], str] = str.ljust) -> list[str]:
    """Return a line for each row, with columns of one width; ``str.rjust`` suits numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]
