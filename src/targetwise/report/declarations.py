"""When the claims of a study were declared, and how many values were there by then.

A prediction counts if it was made before. So a run writes down each claim that it plans, in
``results/<study>/declared_claims.json``, once for each content that its file had. No rule names the record: it makes
no cell out of date, and no failed or forced job deletes it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.files import write_json
from targetwise.recipe import claims, variants
from targetwise.recipe.claims import Claim
from targetwise.report.histories import entries
from targetwise.text import counted

NAME = "declared_claims.json"

#: What an entry must say, and of which kind it is.
FIELDS = {"claim": str, "sha256": str, "date": str, "values": int, "content": dict}

#: Fields of a claim's file that say what it means and who said it, and decide nothing.
WORDING = ("says", "source")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Declared:
    """What is known of a claim's declaration: when its present content was declared, and what a reader must know."""

    date: str
    marks: tuple[str, ...]


def record(config: Mapping[str, Any]) -> None:
    """Add the study's claims to its record, those that are new there or were edited.

    Raises:
        UserError: if the record is damaged.
    """
    study = cells.RESULTS / config["study"]
    before = read(study)
    new = [
        {
            "claim": claim.name,
            "sha256": claim.digest,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "values": _values(config, claim.variants),
            "content": claim.content,
            "about": about(config, claim),
        }
        for claim in claims.of(config)
        if not any(_is_same(entry, config, claim) and entry["sha256"] == claim.digest for entry in before)
    ]
    if new:
        write_json(study / NAME, [*before, *new])


def read(study: Path) -> list[Entry]:
    """Return the declarations of a study, the first one first.

    Raises:
        UserError: if the record is damaged.
    """
    return entries(study / NAME, FIELDS, "entry", "the claims were made before")


def about(config: Mapping[str, Any], claim: Claim) -> Entry:
    """Return what a claim's names mean in a study: its quantity, and the definitions of its variants."""
    return {
        "quantity": claim.quantity,
        "variants": {name: variants.defined(config, name) for name in claim.variants},
    }


def of(before: Sequence[Entry], config: Mapping[str, Any], claim: Claim) -> Declared:
    """Return when a claim was declared as it is now, by what :func:`read` returned."""
    own = [entry for entry in before if entry["claim"] == claim.name]
    same = [entry for entry in own if _is_same(entry, config, claim)]
    if not same:
        return Declared("", ("not declared by a run as it is now",))
    marks = []
    if same[0]["values"]:
        marks.append(f"{'declared' if same[0] is own[0] else 'edited'} after {_there(same[0])} there")
    worded = next((entry for entry in same if entry["sha256"] == claim.digest), None)
    if worded is None:
        marks.append("reworded since it was declared")
    elif worded is not same[0] and worded["values"]:
        marks.append(f"reworded after {_there(worded)} there")
    return Declared(same[0]["date"], tuple(marks))


def withdrawn(before: Sequence[Entry], config: Mapping[str, Any]) -> list[tuple[Entry, str]]:
    """Return the claims that the study named once, when it has values, and does not name now, each with a mark."""
    named, there = claims.named(config), _values(config, config["grid"]["parameterizations"])
    last = {entry["claim"]: entry for entry in before}
    gone = [entry for name, entry in last.items() if name not in named]
    return [(entry, f"withdrawn, and {counted(there, 'value', 'are')} there") for entry in gone] if there else []


def _is_same(entry: Entry, config: Mapping[str, Any], claim: Claim) -> bool:
    """Return whether a claim still predicts what it did, in whatever words."""
    decisive = [{key: each[key] for key in each if key not in WORDING} for each in (entry["content"], claim.content)]
    return (
        entry["claim"] == claim.name
        and decisive[0] == decisive[1]
        and entry.get("about") in (None, about(config, claim))
    )


def _there(entry: Entry) -> str:
    return counted(entry["values"], "value", "were")


def _values(config: Mapping[str, Any], names: Collection[str]) -> int:
    """Return how many numbers there are of the cells of some variants: rows, and trainings that have none yet."""
    folders = [cell.folder for cell in cells.grid(config) if cell.parameterization in names]
    return sum(
        len(list((folder / "fid").glob("*/draw*.json"))) or (folder / "training.json").exists() for folder in folders
    )
