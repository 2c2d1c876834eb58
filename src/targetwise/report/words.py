"""Rows to go through, and numbers and differences as the page writes them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from targetwise.inference.quantiles import CONFIDENCE
from targetwise.text import listed

CERTAINTY = f"{CONFIDENCE:.0%}".replace("%", " %")

#: Up to so many names are all listed in a sentence.
FEW = 5


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows as named tuples."""
    return iter(frame.itertuples(index=False))


def spoken(setting: str) -> str:
    """Return a setting as the page writes it, e.g. ``tiny with steps_50`` for ``tiny, steps_50``."""
    return setting.replace(", ", " with ")


def at(settings: Sequence[str]) -> str:
    """Return where something holds, e.g. ``at tiny with steps_50 and steps_4, and at small with steps_4``."""
    by_scale: dict[str, list[str]] = {}
    for setting in settings:
        scale, _, sampling = setting.partition(", ")
        by_scale.setdefault(scale, []).extend([sampling] if sampling else [])
    if not any(by_scale.values()):
        return f"at {listed(list(by_scale))}"
    return ", and ".join(f"at {scale} with {listed(samplings)}" for scale, samplings in by_scale.items())


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


def some(names: Sequence[str], others: str = "others", last: str = "and") -> str:
    """Return all of a few names, and of many the first, e.g. ``a, b, c and 9 others``."""
    if len(names) <= FEW:
        return listed(names, last)
    return listed([*names[: FEW - 2], f"{len(names) - FEW + 2} {others}"], last)


def probability(p: float) -> str:
    """Return a p-value as the page writes it; one below what quantiles are right to is only bounded."""
    return "< 0.0001" if p < 0.0001 else number(p)


def percent(share: float) -> str:
    """Return a share as e.g. ``12 %``, or ``0.4 %`` where it is small."""
    size = 100 * abs(share)
    return f"{size:.0f} %" if size >= 10 else f"{size:.2g} %"
