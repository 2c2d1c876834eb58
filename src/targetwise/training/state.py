"""Resumable state: saved whole or not at all, checked when loaded, and used by one process at a time.

The folder is not an output of any rule, because Snakemake deletes the outputs of a failed job.
"""

import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

from targetwise.files import atomic, sha256_of_file, write_text
from targetwise.jobs.exclusive import ExclusiveFolder

KEPT = 2


class StateFolder(ExclusiveFolder):
    """The states of one computation, which ``key`` identifies: another key's states are never used."""

    def __init__(self, path: Path, key: str) -> None:
        """Use ``path``; ``key`` is a digest of everything that decides the result."""
        super().__init__(path)
        self.key = key

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write the state after ``step`` steps; the states before the previous one are removed."""
        path = self.path / f"step-{step:09d}.pt"
        with atomic(path) as temporary, temporary.open("wb") as file:
            _save({"key": self.key, "step": step, **content}, file)
        # Only a state with a digest beside it counts: a kill between the two leaves the one before in force.
        write_text(self._digest_file(path), sha256_of_file(path) + "\n")
        for old in self._paths()[KEPT:]:
            self._remove(old)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state of this key on the CPU, or None.

        A damaged state is reported on stderr and the one before it is used. States of another key are removed:
        what they belong to has changed since.
        """
        for path in self._paths():
            digest_file = self._digest_file(path)
            digest = digest_file.read_bytes().strip() if digest_file.exists() else b""
            if digest != sha256_of_file(path).encode():
                print(
                    f"{path} is damaged or was not finished; going back to the state before it",
                    file=sys.stderr,
                )
                self._remove(path)
                continue
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if content["key"] != self.key:
                print(f"{path} is of another specification; starting from scratch", file=sys.stderr)
                self._remove(path)
                continue
            return content
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"), reverse=True)

    def _digest_file(self, path: Path) -> Path:
        return path.with_suffix(".sha256")

    def _remove(self, path: Path) -> None:
        self._digest_file(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _save(content: dict[str, Any], file: BinaryIO) -> None:
    """Save to Python's own file, so that a full disk is an OSError and not torch's RuntimeError about positions."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
