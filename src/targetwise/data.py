"""Data sets on disk: ``dataset.npz`` with uint8 images, and a small manifest with their digests.

The manifest is what Snakemake compares, so it holds nothing that two makings of the same images could differ in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.errors import UserError
from targetwise.files import atomic, read_json, sha256_of_array, sha256_of_file, write_json

SPLITS = ("train", "test")

#: Digits held out from training; as many as the demo samples, so that floor and cells are measured alike.
DIGITS_TEST = 512

#: SHA-256 of the images (N, H, W, C) uint8 of each split. Images are accepted by these and by nothing else.
DIGESTS = {
    "digits": {
        "train": "42845a0898d3457485f183d689d06a74c786b4147c0d865f5e497ad7a7cf6cce",
        "test": "5c4618af8e2397fe49dbc90dcde9d6a352448afc9fdfffa031d0ee31c01d0b41",
    },
}


@dataclass(frozen=True)
class Images:
    """One split: ``images`` (N, H, W, C) uint8 in 0 … 255, ``labels`` (N,) int64, and the images' SHA-256."""

    images: np.ndarray
    labels: np.ndarray
    digest: str

    @property
    def channels(self) -> int:
        """Return C."""
        return int(self.images.shape[3])

    @property
    def size(self) -> int:
        """Return H, which equals W."""
        return int(self.images.shape[1])


def digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's 1,797 handwritten digits, 8×8×1, split 1,285 to 512 by a fixed permutation.

    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels, 0 … 16, spread over 0 … 255. RandomState's stream is frozen by numpy's policy.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.RandomState(0).permutation(len(images))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    labels = bunch.target.astype(np.int64)
    return {
        "train": images[train],
        "train_labels": labels[train],
        "test": images[test],
        "test_labels": labels[test],
    }


KINDS: dict[str, Callable[[], dict[str, np.ndarray]]] = {"digits": digits}


def prepare(name: str, definition: Mapping[str, Any], folder: Path) -> None:
    """Make ``dataset.npz`` and ``manifest.json`` in ``folder``.

    Args:
        name: the data set's, as the configuration calls it.
        definition: its ``kind`` and where to get it.
        folder: ``data/<name>``.

    Raises:
        UserError: if the images are not the ones their digests declare.
    """
    kind = definition["kind"]
    if kind not in KINDS:
        raise UserError(f"dataset {name}: there is no way yet to prepare the kind '{kind}'")
    arrays = KINDS[kind]()
    for split, declared in DIGESTS[kind].items():
        found = sha256_of_array(arrays[split])
        if found != declared:
            raise UserError(f"dataset {name}: the {split} images have SHA-256 {found}, but {declared} is declared")
    with atomic(folder / "dataset.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    write_json(
        folder / "manifest.json",
        {
            "dataset": name,
            "kind": kind,
            "file_sha256": sha256_of_file(folder / "dataset.npz"),
            "splits": {
                split: {"shape": list(arrays[split].shape), "sha256": sha256_of_array(arrays[split])}
                for split in SPLITS
            },
        },
    )


def load(folder: Path, split: str) -> Images:
    """Load one split of a prepared data set and check it against the manifest.

    Raises:
        UserError: if a file is missing or damaged.
    """
    manifest = read_json(folder / "manifest.json")
    path = folder / "dataset.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays[split], arrays[f"{split}_labels"]
        digest = sha256_of_array(images)
    except Exception as error:
        raise UserError(
            f"{path} is missing or damaged ({type(error).__name__}); delete it and run again, it is made anew"
        ) from error
    declared = manifest["splits"][split]["sha256"]
    if digest != declared:
        raise UserError(
            f"{path} is damaged: its {split} images have SHA-256 {digest}, the manifest says {declared}; "
            "delete it and run again, it is made anew"
        )
    return Images(images, labels, digest)
