"""Data sets on disk: ``dataset.npz`` with uint8 images, and a small manifest with their digests.

The manifest is what Snakemake compares, so it holds nothing that two makings of the same images could differ in: not
even the source they came from, which the log of ``prepare_data`` tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.data import datasets
from targetwise.errors import UserError
from targetwise.files import atomic, read_json, remedy, sha256_of_array, sha256_of_file, write_json

SPLITS = ("train", "test")

#: Every data set has a folder of its name here.
ROOT = Path("data")


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

    def first(self, count: int) -> "Images":
        """Return the first ``count`` images, with a digest of their own.

        Raises:
            UserError: if there are not that many.
        """
        if count > len(self.images):
            raise UserError(f"metric.reference.first is {count}, but the split has {len(self.images)} images")
        images = self.images[:count]
        return Images(images, self.labels[:count], sha256_of_array(images))


def prepare(name: str, definition: Mapping[str, Any], folder: Path) -> None:
    """Make ``dataset.npz`` and ``manifest.json`` in ``folder``.

    Args:
        name: the data set's, as the configuration calls it.
        definition: its ``kind`` and where to get it.
        folder: ``data/<name>``.

    Raises:
        UserError: if the images cannot be had, or are not the ones their digests declare.
    """
    arrays = datasets.make(name, definition)
    with atomic(folder / "dataset.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{key: arrays[key] for key in sorted(arrays)})
    write_json(
        folder / "manifest.json",
        {
            "dataset": name,
            "kind": definition["kind"],
            "file_sha256": sha256_of_file(folder / "dataset.npz"),
            "pixel_deviation": _deviation(arrays["train"]),
            "splits": {
                split: {
                    "shape": list(arrays[split].shape),
                    "sha256": sha256_of_array(arrays[split]),
                    "labels_sha256": sha256_of_array(arrays[f"{split}_labels"]),
                }
                for split in SPLITS
            },
        },
    )


def _deviation(images: np.ndarray) -> float:
    """Return the standard deviation of all pixels of images uint8 in [-1, 1], by their histogram."""
    share = np.bincount(images.ravel(), minlength=256) / images.size
    levels = np.arange(256) / 127.5
    return float(np.sqrt(share @ (levels - share @ levels) ** 2))


def prepared_digest(name: str, root: Path = ROOT) -> str:
    """Return the SHA-256 of a prepared data set's training images, as its manifest has it.

    Raises:
        UserError: if the manifest is missing or damaged.
    """
    return str(read_json(root / name / "manifest.json")["splits"]["train"]["sha256"])


def split_digests(name: str, root: Path = ROOT) -> dict[str, str]:
    """Return the SHA-256 of the images of both splits of a prepared data set; see :func:`prepared_digest`."""
    splits = read_json(root / name / "manifest.json")["splits"]
    return {split: str(splits[split]["sha256"]) for split in SPLITS}


def training_images(specification: Mapping[str, Any], root: Path = ROOT) -> Images:
    """Load the images that a cell is trained on, with the labels that a class-conditional one is told.

    Args:
        specification: the content of ``cell.json``.
        root: the folder of data sets.

    Raises:
        UserError: if they are missing or damaged, or not the ones that the specification declares.
    """
    name, declared = specification["data"]["dataset"], specification["data"]["train_sha256"]
    images = load(root / name, "train")
    if declared is not None and images.digest != declared:
        raise UserError(
            f"{root / name} holds other images: its training split has SHA-256 {images.digest}, but {declared} is "
            f"declared for {name}; {remedy(root / name / 'dataset.npz')}"
        )
    labels, found = specification["data"].get("labels_sha256"), sha256_of_array(images.labels)
    if labels not in (None, found):
        raise UserError(
            f"{root / name} holds other labels: those of its training split have SHA-256 {found}, but {labels} is "
            f"declared for {name}; {remedy(root / name / 'dataset.npz')}"
        )
    return images


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
        raise UserError(f"{path} is missing or damaged ({type(error).__name__}); {remedy(path)}") from error
    declared = manifest["splits"][split]["sha256"]
    if digest != declared:
        raise UserError(
            f"{path} is damaged: its {split} images have SHA-256 {digest}, the manifest says {declared}; "
            f"{remedy(path)}"
        )
    return Images(images, labels, digest)
