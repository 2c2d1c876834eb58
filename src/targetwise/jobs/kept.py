"""Finished results, kept under second names until a later stage has them.

Snakemake deletes the outputs of a job that failed, and those of every job that was at work when its driver was
killed, even if the job has finished since. So a job makes its result in a folder that is not an output, and what
Snakemake sees are hard links to it. The next start of the job puts them back.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from targetwise.errors import UserError
from targetwise.files import link, read_json, sha256_of_file, sync_folder, write_json


class Kept:
    """The result of one job."""

    def __init__(self, folder: Path, key: str, outputs: Sequence[Path]) -> None:
        """Keep ``outputs`` in ``folder`` under their own names.

        Args:
            folder: ``kept/<job>``.
            key: a digest of everything that decides the result; a result with another key is never used.
            outputs: where the result belongs, the file that says what it is last.
        """
        self.folder = folder
        self.key = key
        self.outputs = outputs

    def path(self, output: Path) -> Path:
        """Return where the job writes one of its outputs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / output.name

    def finish(self) -> None:
        """Declare the result whole, and put it where it belongs."""
        digests = {output.name: sha256_of_file(self.path(output)) for output in self.outputs}
        write_json(self._record, {"key": self.key, "sha256": digests})
        self._put_in_place()

    def adopt(self) -> None:
        """Keep what is in its place already, as if it had just been finished."""
        for output in self.outputs:
            link(output, self.path(output))
        self.finish()

    def put_back(self) -> bool:
        """Put the result where it belongs, if it is kept whole; return whether it is. Another one is removed."""
        if not self.folder.exists():
            return False
        if not self._is_whole():
            shutil.rmtree(self.folder)
            return False
        print(f"note: {self.outputs[-1]} was finished by an earlier run, and kept", file=sys.stderr, flush=True)
        self._put_in_place()
        return True

    @property
    def _record(self) -> Path:
        return self.folder / "record.json"

    def _is_whole(self) -> bool:
        try:
            record = read_json(self._record)
            digests = {output.name: sha256_of_file(self.folder / output.name) for output in self.outputs}
        except (UserError, OSError):
            return False
        return bool(record == {"key": self.key, "sha256": digests})

    def _put_in_place(self) -> None:
        for output in self.outputs:
            link(self.path(output), output)
        for folder in {output.parent for output in self.outputs}:
            sync_folder(folder)


def release(folder: Path, job: str = "") -> None:
    """Forget what is kept in ``folder``: a later stage has it, so the jobs that made it are known to be done.

    Args:
        folder: of a cell, or of whatever else jobs have kept results of.
        job: one of them, where others may be at work; by default all.
    """
    shutil.rmtree(folder / "kept" / job, ignore_errors=True)
    with suppress(OSError):
        (folder / "kept").rmdir()
