"""Unfinished work: arrays that are made one after the other, so that a kill costs the last one only."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from targetwise.files import atomic, canonical_json, write_text


class Parts:
    """A folder of arrays by name, each whole or absent; those of another key are removed."""

    def __init__(self, folder: Path, key: str) -> None:
        """Use ``folder``; ``key`` says everything that decides the arrays."""
        self.folder = folder
        self._renew("key", key, "*.npz")

    def keep_only(self, kind: str, conditions: Mapping[str, str]) -> None:
        """Remove the arrays ``<kind>-…`` that were made under other conditions: a result is not of two kinds."""
        self._renew(f"{kind}.json", canonical_json(conditions), f"{kind}-*.npz")

    def read(self, name: str) -> np.ndarray | None:
        """Return an array, or None if it is not there; one that is damaged is removed."""
        path = self._path(name)
        try:
            with np.load(path, allow_pickle=False) as archive:  # a zip file, so its checksum is checked
                array: np.ndarray = archive["arr_0"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            path.unlink()
            return None
        return array

    def write(self, name: str, array: np.ndarray) -> None:
        """Save an array. It need not survive a power cut, so nothing waits for the disk."""
        with atomic(self._path(name), durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, array)

    def _renew(self, marker: str, content: str, arrays: str) -> None:
        """Remove ``arrays`` unless the marker beside them says ``content``, and let it say so."""
        path = self.folder / marker
        if not path.exists() or path.read_bytes() != content.encode():
            for old in self.folder.glob(arrays):
                old.unlink()
            write_text(path, content)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"
