"""Rows to go through, and numbers and differences as the page writes them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from targetwise.report.statistics import CONFIDENCE

CERTAINTY = f"{CONFIDENCE:.0%}".replace("%", " %")


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows as named tuples."""
    return iter(frame.itertuples(index=False))


def number(value: float | None) -> str:
    """Return a value as the page writes it, e.g. ``1,853``, ``44.73`` or ``0.0021``; nothing known is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2
    text = f"{value:.2g}" if 0 < size < 0.1 else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Return a difference with its sign, e.g. ``+1.20``."""
    return ("+" if value > 0 else "") + number(value)


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return e.g. ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def percent(share: float) -> str:
    """Return a share as e.g. ``12 %``, or ``0.4 %`` where it is small."""
    size = 100 * abs(share)
    return f"{size:.0f} %" if size >= 10 else f"{size:.2g} %"
