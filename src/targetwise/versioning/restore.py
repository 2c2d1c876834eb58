"""Bring back what dvc.lock records, from DVC's cache or its remote, and make Snakemake agree.

A file counts by its bytes and by what it says it was made from, never by its date. What is damaged, lost, or of
another configuration is named, and left to be made again. What is here, whole and newer than the record, stays.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targetwise import cells, errors
from targetwise.cells import Cell
from targetwise.cells.agreement import Agreement, Before, Facts, Part, parts, read_facts, require_whole
from targetwise.errors import UserError
from targetwise.jobs import drivers
from targetwise.recipe import images
from targetwise.text import counted
from targetwise.versioning import dvc, stages
from targetwise.versioning.dvc import Cache
from targetwise.versioning.stages import Group


@dataclass
class Outcome:
    """What became of a study.

    Attributes:
        study: its name.
        whole: cells of which everything is there.
        outdated: cells of which something recorded is of another configuration than the present one.
        unrecorded: cells of which something is not recorded.
        lost: recorded files of which no undamaged copy is left.
        placed: how many files were put in place.
        notes: what was repaired on the way, and what could not be.
    """

    study: str
    whole: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    lost: list[Path] = field(default_factory=list)
    placed: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what a person wants to know, a line each."""
        told = [
            *self.notes,
            f"{self.study}: {counted(len(self.whole), 'cell', 'are')} whole; "
            f"{counted(self.placed, 'file', 'were')} put in place",
        ]
        for names, what in (
            (self.outdated, "recorded under another configuration; the next run makes them again"),
            (self.unrecorded, f"not recorded in {dvc.LOCK}; the next run makes them"),
        ):
            if names:
                told.append(f"{self.study}: {', '.join(names)}: {what}")
        return told


def recorded_studies() -> list[dict[str, Any]]:
    """Return the whole configuration of every study of which dvc.lock records anything.

    Raises:
        UserError: if there is none.
    """
    found = [group.config for group in stages.groups() if dvc.recorded(group)]
    if not found:
        raise UserError(f"{dvc.LOCK} records no result; `snakemake --cores all all` makes results and records them")
    return found


def restore(study: Mapping[str, Any]) -> Outcome:
    """Bring a study's recorded results back, and make Snakemake agree that they are up to date.

    Args:
        study: the whole configuration.

    Raises:
        UserError: if DVC or Snakemake is missing, nothing of the study is recorded, a run is under way, or Snakemake
            fails.
    """
    errors.require("dvc", "snakemake")
    drivers.remove_stale_locks()
    if drivers.is_locked():
        raise UserError("a run is under way here (if it was killed: `snakemake --unlock`); restore when it has ended")
    group = stages.group_of(study)
    recorded = dvc.recorded(group)
    if not recorded:
        raise UserError(f"{dvc.LOCK} records no cell of study {study['study']}")
    outcome, cache = Outcome(study["study"]), Cache()
    _repair(group, recorded, cache, outcome)
    up_to_date = _needed_beside_cells(study)
    _snakemake(group, up_to_date, "--cores", "all")
    agreement = Agreement(study)
    for cell in cells.grid(study):
        up_to_date += _restore_cell(cell, recorded.get(cell.name, {}), agreement, cache, outcome)
    # Dates and records of all that is up to date are made again, each job's after those of the jobs before it.
    _snakemake(group, up_to_date, "--touch", "--forceall", "--cores", "1")
    # dvc.lock may lack what is here. And where a file is missing, Snakemake makes it only for a job that has to run
    # and needs it: this one's needs them all.
    (cells.RESULTS / study["study"] / "versioned.json").unlink(missing_ok=True)
    if len(outcome.whole) == len(cells.grid(study)):
        _snakemake(group, ["all"], "--cores", "all")  # no cell has to run: table, report, MLflow, DVC
    return outcome


def _repair(group: Group, recorded: Mapping[str, Mapping[Path, str]], cache: Cache, outcome: Outcome) -> None:
    """Make DVC's cache whole, with what is in the results or in the remote."""
    lacking: dict[Path, tuple[str, str]] = {}
    for cell, files in recorded.items():
        for path, md5 in files.items():
            if cache.holds(md5):
                continue
            if cache.discard(md5):
                outcome.notes.append(f"damaged in DVC's cache: {path}, MD5 {md5}")
            if cache.is_intact(path, md5):
                cache.put_back(path, md5)
            else:
                lacking[path] = group.stages[cell].name, md5
    if not lacking:
        return
    remote = dvc.has_remote()
    why = dvc.fetch(sorted({stage for stage, _ in lacking.values()})) if remote else "DVC has no remote"
    for path, (_, md5) in lacking.items():
        if not cache.holds(md5):
            damaged = cache.discard(md5)
            outcome.lost.append(path)
            place = "remote" if remote else "cache"
            outcome.notes.append(f"{'damaged' if damaged else 'not'} in DVC's {place}: {path}, MD5 {md5}")
    if outcome.lost and why:
        outcome.notes.append(why)


def _needed_beside_cells(study: Mapping[str, Any]) -> list[Path]:
    """Return what cells are made from beside their own files, or what needs it too.

    Made after a cell was called up to date, it would put the cell out of date again.
    """
    folder, grid = cells.RESULTS / study["study"], study["grid"]
    needed = [Path("data") / study["data"]["dataset"] / "manifest.json"]
    needed += [folder / name / "check.json" for name in grid["parameterizations"]]
    if study["bounds"]:
        needed.append(folder / "floor.json")
        needed += [folder / "exact.json"] if images.has_exact(study) else []
        needed += [
            folder / name / scale / "ceiling.json" for name in grid["parameterizations"] for scale in grid["scales"]
        ]
    return needed


def _restore_cell(
    cell: Cell, recorded: Mapping[Path, str], agreement: Agreement, cache: Cache, outcome: Outcome
) -> list[Path]:
    """Put in place what a cell lacks, and return the first file of each part that is up to date."""
    before: Before = {}
    up_to_date = []
    everything = parts(agreement.config, cell)
    for part in everything:
        damage = None
        try:
            facts = _lying_here(part, recorded, cache)
        except UserError as error:
            facts, damage = None, error
        if facts is None or not agreement.holds(cell, part, facts, before):
            facts = _recorded(part, recorded, cache)
            if facts is None or not agreement.holds(cell, part, facts, before):
                if damage and part.facts.exists():
                    # Dates say nothing of damage; a part without its first file is made again.
                    part.facts.unlink()
                    outcome.notes.append(str(damage))
                continue
            for path in part.files:
                cache.put_in_place(path, recorded[path])
            outcome.placed += len(part.files)
        before[part.kind, part.draw] = facts
        up_to_date.append(part.facts)
    if len(up_to_date) == len(everything):
        outcome.whole.append(cell.name)
    elif all(path in recorded for part in everything for path in part.files):
        if not set(recorded) & set(outcome.lost):
            outcome.outdated.append(cell.name)
    else:
        outcome.unrecorded.append(cell.name)
    return up_to_date


def _lying_here(part: Part, recorded: Mapping[Path, str], cache: Cache) -> Facts:
    """Return the facts of a part as it is in the results.

    Raises:
        UserError: if a file of it is missing or damaged.
    """
    others = [path for path in part.files if path not in recorded or not cache.is_intact(path, recorded[path])]
    if part.facts in others:
        require_whole(part)
    elif others:
        raise UserError(f"{others[0]} is missing, or is not what was recorded with {part.facts}")
    return read_facts(part.facts, part.kind)


def _recorded(part: Part, recorded: Mapping[Path, str], cache: Cache) -> Facts | None:
    """Return the facts of a part whose files are all recorded and kept."""
    if all(path in recorded and cache.holds(recorded[path]) for path in part.files):
        return read_facts(cache.path(recorded[part.facts]), part.kind)
    return None


def _snakemake(group: Group, targets: Iterable[Path | str], *options: str) -> None:
    """Run Snakemake on targets of a group's study."""
    overlays = ["--configfile", *map(str, group.overlays)] if group.overlays else []
    command = [sys.executable, "-m", "snakemake", *overlays, *options, "--quiet", "all", "--", *map(str, targets)]
    if subprocess.run(command, env={**os.environ, "TARGETWISE_COMMAND": "targetwise restore"}).returncode:
        raise UserError("Snakemake failed, as it says above; fix it and restore again")
