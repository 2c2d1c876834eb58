"""DVC: the one module that knows it.

Snakemake makes a cell's files; DVC keeps them under their digests in its cache; `dvc.lock` records which they are.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from targetwise import cells
from targetwise.cells.outcome import read_outcome
from targetwise.errors import UserError
from targetwise.files import link, read_json
from targetwise.text import counted
from targetwise.versioning.stages import Group, NotVersionedError, Stage, group_of

LOCK = Path("dvc.lock")


def in_repository() -> bool:
    """Return whether a git repository would take dvc.lock; without one, DVC does nothing."""
    try:
        done = subprocess.run(["git", "check-ignore", "-q", str(LOCK)], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 1


async def allow_read_only_output(_job: Any) -> None:
    """Take the place of the check by which Snakemake refuses to make a read-only output again.

    A file of the results and what DVC keeps of it are one file under two names. Snakemake deletes a job's outputs
    before the job runs, and then the job makes a new file, so what DVC keeps stays as it is.
    """


def commit(study: Mapping[str, Any], *, finished_only: bool = False) -> dict[str, Any]:
    """Put the files of a study's cells into DVC's cache, and record them in dvc.lock.

    Args:
        study: the whole configuration.
        finished_only: whether cells of which something is missing are left out, and not an error.

    Returns:
        ``stages``: the SHA-256 digests of the recorded weights and samples, by stage and file; ``left_out``: the
        cells of which nothing is recorded, by the reason.

    Raises:
        UserError: if a file is missing or of another configuration, or DVC fails.
    """
    from targetwise.cells.agreement import Agreement

    grid = cells.grid(study)
    try:
        if "DVC_STAGE" in os.environ and finished_only:
            raise NotVersionedError(f"`dvc repro {os.environ['DVC_STAGE']}` is at work, and records what it makes")
        if not in_repository():
            raise NotVersionedError("DVC needs a git repository, and there is none here")
        group = group_of(study)
    except NotVersionedError as reason:
        return {"stages": {}, "left_out": {str(reason): [cell.name for cell in grid]}}
    agreement = Agreement(study)
    stages: dict[str, Any] = {}
    left_out: dict[str, list[str]] = {}
    for cell in grid:
        try:
            agreement.require(cell)
        except UserError:
            if not finished_only:
                raise
            left_out.setdefault("not finished", []).append(cell.name)
            continue
        stage = group.stage_of(cell)
        stages[stage.name] = _digests(stage)
    if stages:
        # The group's name where that is all of it: DVC writes dvc.lock again for every name that it is given.
        _dvc("commit", "--force", *([group.name] if len(stages) == len(group.stages) else stages))
    return {"stages": stages, "left_out": left_out}


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return what a person wants to know of what :func:`commit` did, a line each."""
    lines = []
    if record["stages"]:
        kept = counted(len(record["stages"]), "cell")
        lines.append(f"DVC keeps {kept}; commit {LOCK}, the record of what it keeps, with the result")
    for reason, names in record["left_out"].items():
        which = f"{', '.join(names)}: " if record["stages"] else ""
        lines.append(f"not versioned: {which}{reason}")
    return lines


def recorded(group: Group) -> dict[str, dict[Path, str]]:
    """Return the MD5 digest that dvc.lock records for each file, by cell; cells without a record are left out.

    Raises:
        UserError: if dvc.lock is damaged.
    """
    if not LOCK.exists():
        return {}
    try:
        # Thousands of stages make a long file, for which the loader without libyaml takes minutes.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(LOCK.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (a SafeLoader)
        entries = content["stages"]
        return {
            cell: {Path(out["path"]): out["md5"] for out in entries[stage.name]["outs"]}
            for cell, stage in group.stages.items()
            if stage.name in entries
        }
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{LOCK} is damaged, or holds merge markers; take one side of it with git") from None


def has_remote() -> bool:
    """Return whether a remote is configured."""
    return bool(_dvc("remote", "list").strip())


def fetch(stages: Iterable[str]) -> str:
    """Bring what the cache lacks of these stages from the remote.

    Returns:
        What DVC says went wrong; nothing if it brought everything.
    """
    try:
        _dvc("fetch", *stages)
    except UserError as error:
        return str(error)
    return ""


class Cache:
    """DVC's cache: files under their digests. It answers by the bytes, whatever a date says."""

    def __init__(self) -> None:
        """Find the cache of the project in the working directory."""
        self.folder = Path(_dvc("cache", "dir").strip()) / "files/md5"
        self._digests: dict[tuple[int, ...], str] = {}

    def path(self, md5: str) -> Path:
        """Return where the file with this digest is kept."""
        return self.folder / md5[:2] / md5[2:]

    def holds(self, md5: str) -> bool:
        """Return whether the file with this digest is kept, and undamaged."""
        return self.is_intact(self.path(md5), md5)

    def is_intact(self, path: Path, md5: str) -> bool:
        """Return whether a file is there and has the digest."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        # A file and its copy in the cache are mostly one, which is read once; its number may later be another's.
        inode = stat.st_dev, stat.st_ino, stat.st_ctime_ns, stat.st_size
        if inode not in self._digests:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            self._digests[inode] = digest.hexdigest()
        return self._digests[inode] == md5

    def discard(self, md5: str) -> bool:
        """Remove what is kept under this digest; return whether anything was."""
        path = self.path(md5)
        if not path.exists():
            return False
        path.unlink()
        return True

    def put_back(self, path: Path, md5: str) -> None:
        """Keep a file of the results that has this digest, after it was lost here."""
        link(path, self.path(md5))

    def put_in_place(self, path: Path, md5: str) -> None:
        """Put the file with this digest where the results have it, in place of what is there."""
        link(self.path(md5), path)


def _digests(stage: Stage) -> dict[str, str]:
    """Return the SHA-256 digests of a cell's weights and samples as they are recorded beside them."""
    digests = {}
    for path in sorted(stage.files):
        if path.suffix == ".safetensors":
            digests[str(path)] = read_outcome(path.with_name("training.json"))["model_sha256"]
        elif path.suffix == ".npz":
            digests[str(path)] = read_json(path.with_suffix(".json"))["samples_sha256"]
    return digests


def _dvc(*arguments: str) -> str:
    """Run DVC, after another one that is at work here, and return what it prints."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise UserError(f"dvc {arguments[0]}: {(errors[-1:] or lines or ['failed'])[0]}")
    return done.stdout
