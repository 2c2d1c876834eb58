"""Looks: with which values a study's numbers were seen, before others were added.

Adding seeds until something is resolved is a search, and so is choosing the smallest difference of interest when the
values are known. So whatever shows numbers (the table's rule, a provisional page, `targetwise table`, `answer` and
`index`) adds an entry to ``results/<study>/looks.json`` when finished rows, or what is declared of their comparison,
are not those of the last look. No rule names the file: it triggers nothing, and no failed or forced job deletes it.
"""

import errno
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from targetwise.files import sha256_of_json, write_json
from targetwise.report.histories import entries
from targetwise.text import counted, listed

NAME = "looks.json"

#: What an entry must say, and of which kind it is.
FIELDS = {"date": str, "values": int, "seeds": dict, "rows_sha256": str, "comparison": dict, "comparison_sha256": str}

#: Up to so many looks are told one by one.
TOLD = 5

Look = dict[str, Any]


def record(study: Path, frame: pd.DataFrame, config: Mapping[str, Any]) -> bool:
    """Add a look to a study's record if it shows something new; return whether it was added.

    Where nothing may be written (someone else's results) it is not recorded, and standard error says so.

    Args:
        study: its folder, ``results/<study>``.
        frame: the table that is shown, :func:`targetwise.report.table.table`.
        config: the whole configuration.

    Raises:
        UserError: if the record is damaged.
    """
    if not is_new(study, frame, config):
        return False
    try:
        write_json(study / NAME, [*read(study), _look(frame, config)])
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        print(f"note: this look at the values is not recorded: {study / NAME}: {error.strerror}", file=sys.stderr)
        return False
    return True


def is_new(study: Path, frame: pd.DataFrame, config: Mapping[str, Any]) -> bool:
    """Return whether a table shows values, or what is declared of their comparison, that the last look did not.

    Args:
        study: its folder, ``results/<study>``.
        frame: :func:`targetwise.report.table.table`.
        config: the whole configuration.

    Raises:
        UserError: if the record is damaged.
    """
    if not (frame["status"] == "finished").any():
        return False
    before, look = read(study), _look(frame, config)
    return not before or any(before[-1][name] != look[name] for name in ("rows_sha256", "comparison_sha256"))


def read(study: Path) -> list[Look]:
    """Return the looks at a study, the first one first.

    Raises:
        UserError: if the record is damaged.
    """
    return entries(study / NAME, FIELDS, "look", "the values were looked at before")


def summary(study: Path, config: Mapping[str, Any]) -> list[str]:
    """Return in sentences how often the values were looked at, and what was declared anew after that.

    Args:
        study: its folder, ``results/<study>``.
        config: the whole configuration.

    Raises:
        UserError: if the record is damaged.
    """
    found = read(study)
    if not found:
        return []
    views = [found[0], *(after for before, after in pairwise(found) if after["rows_sha256"] != before["rows_sha256"])]
    declared = [*(look["comparison"] for look in found), config["comparison"]]
    changes = [
        sentence
        for look, (before, after) in zip(found, pairwise(declared), strict=True)
        for sentence in _changes(before, after, look["values"])
    ]
    return [_counted(views), *changes]


def _look(frame: pd.DataFrame, config: Mapping[str, Any]) -> Look:
    finished, comparison = frame[frame["status"] == "finished"], config["comparison"]
    named = ["metric", "setting", "parameterization", "seed", "draw", "value"]
    rows = sorted(finished[named].astype({"seed": int, "draw": int, "value": float}).to_numpy().tolist(), key=str)
    seeds: dict[str, dict[str, int]] = {}
    for (setting, name), group in finished.groupby(["setting", "parameterization"], sort=False):
        seeds.setdefault(str(setting), {})[str(name)] = int(group["seed"].nunique())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "values": len(rows),
        "seeds": seeds,
        "rows_sha256": sha256_of_json(rows),
        "comparison": dict(comparison),
        "comparison_sha256": sha256_of_json(dict(comparison)),
    }


def _counted(views: Sequence[Look]) -> str:
    """Return how often, and with what, e.g. ``The results were looked at 3 times, with 3, 5 and 10 seeds``."""
    if len(views) == 1:
        return f"The results were looked at once, with {_seeds(views[0])}."
    begun = f"The results were looked at {len(views)} times,"
    if len(views) > TOLD:
        return f"{begun} first with {_of(views[0])}, last with {_of(views[-1])}."
    told = [_range(view) for view in views]
    if len(set(told)) < len(told):  # the same seeds of other variants, or other values of the same
        return f"{begun} with {listed([str(view['values']) for view in views])} values."
    return f"{begun} with {listed(told)} seeds."


def _range(view: Look) -> str:
    """Return the seeds of a look, e.g. ``3`` or ``1 to 3`` where variants have different numbers."""
    counts = [count for variants in view["seeds"].values() for count in variants.values()]
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def _seeds(view: Look) -> str:
    told = _range(view)
    return f"{told} {'seed' if told == '1' else 'seeds'}"


def _of(view: Look) -> str:
    return f"{_seeds(view)} ({counted(view['values'], 'value')})"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], values: int) -> list[str]:
    """Return a sentence for each thing that was declared anew when so many values were there."""
    there = f"when {counted(values, 'value', 'were')} already known"
    said = {
        "smallest_difference": ("The smallest difference of interest was", _percent),
        "baseline": ("The baseline was", lambda name: str(name or "none")),
    }
    sentences = [
        f"{subject} changed from {words(before.get(name))} to {words(after.get(name))} {there}."
        for name, (subject, words) in said.items()
        if before.get(name) != after.get(name)
    ]
    others = [
        name for name in ("families", "factors", "curves") if (before.get(name) or []) != (after.get(name) or [])
    ]
    if others:
        sentences.append(f"The declared {listed(others)} were changed {there}.")
    return sentences


def _percent(ratio: float | None) -> str:
    return "none" if ratio is None else f"{100 * ratio:.3g} %"
