"""When the claims of a study were declared, and how many values were there by then.

A prediction counts if it was made before. So a run writes down each claim that it plans, in
``results/<study>/declared_claims.json``, once for each content that its file had. No rule names the record: it makes
no cell out of date, and no failed or forced job deletes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.files import write_json
from targetwise.recipe import claims
from targetwise.recipe.claims import Claim
from targetwise.report.histories import entries
from targetwise.text import counted

NAME = "declared_claims.json"

#: What an entry must say, and of which kind it is.
FIELDS = {"claim": str, "sha256": str, "date": str, "values": int, "content": dict}

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
    known = {(entry["claim"], entry["sha256"]) for entry in before}
    new = [
        {
            "claim": claim.name,
            "sha256": claim.digest,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "values": _values(config, claim),
            "content": claim.content,
        }
        for claim in claims.of(config)
        if (claim.name, claim.digest) not in known
    ]
    if new:
        write_json(study / NAME, [*before, *new])


def read(study: Path) -> list[Entry]:
    """Return the declarations of a study, the first one first.

    Raises:
        UserError: if the record is damaged.
    """
    return entries(study / NAME, FIELDS, "entry", "the claims were made before")


def of(study: Path, claim: Claim) -> Declared:
    """Return when a claim was declared as it is now.

    Raises:
        UserError: if the record is damaged.
    """
    own = [entry for entry in read(study) if entry["claim"] == claim.name]
    present = next((entry for entry in own if entry["sha256"] == claim.digest), None)
    if present is None:
        return Declared("", ("not declared by a run as it is now",))
    there = counted(present["values"], "value", "were")
    if not present["values"]:
        return Declared(present["date"], ())
    if present is not own[0]:
        return Declared(present["date"], (f"edited after {there} there",))
    return Declared(present["date"], (f"declared after {there} there",))


def _values(config: Mapping[str, Any], claim: Claim) -> int:
    """Return how many rows of the claim's cells exist."""
    folders = [cell.folder for cell in cells.grid(config) if cell.parameterization in claim.variants]
    return sum(1 for folder in folders for _ in (folder / "fid").glob("*/draw*.json"))
