"""List the claims: all that there are files of, and the verdicts on those that a study names."""

from collections.abc import Iterator, Mapping
from typing import Any

from targetwise import cells
from targetwise.recipe import claims as recipe
from targetwise.text import counted


def lines(study: Mapping[str, Any]) -> Iterator[str]:
    """Return what is known of a study's claims, and the names of the others.

    Raises:
        UserError: if a claim's file is wrong.
    """
    named = recipe.named(study)
    if named:
        yield from _judged(study)
    others = [name for name in recipe.known() if name not in named]
    if named and others:
        yield f"\n{counted(len(others), 'further claim')} that this study does not name:"
    for name in others:
        yield f"{name}: {recipe.read(name)['says']}"


def _judged(study: Mapping[str, Any]) -> Iterator[str]:
    from targetwise.report import claims, looks
    from targetwise.report.table import table
    from targetwise.report.words import number, records

    frame = table(study)
    looks.record(cells.RESULTS / study["study"], frame, study)
    found = claims.table(study, frame)
    for (name, says), rows in found.groupby(["claim", "says"], sort=False):
        yield f"{name}: {says}"
        for row in records(rows):
            compared = f"{row.quantity} of {row.left}" + (f" against {row.right}" if row.right else "")
            measured = (
                f"{number(row.estimate)} ({number(row.low)} to {number(row.high)})"
                if row.seeds
                else "nothing measured"
            )
            notes = "; ".join(filter(None, [row.lacking, row.marks]))
            yield f"  {row.verdict:<12}  {row.setting}: {compared}: {measured}, predicted {row.predicts}" + (
                f" [{notes}]" if notes else ""
            )
    verdicts = found["verdict"].value_counts()
    yield ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) + ", all together by Holm's method"
