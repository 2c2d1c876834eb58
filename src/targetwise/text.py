"""Words and tables for a terminal."""

from collections.abc import Callable, Sequence


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
