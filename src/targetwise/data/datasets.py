"""The kinds of data sets: each gives ``train``, ``test`` and their labels, the same arrays on every machine."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from targetwise.data import cifar10, digests, spiral
from targetwise.data.image_files import fit, list_images, open_image
from targetwise.data.sources import first_accepted
from targetwise.errors import UserError
from targetwise.files import sha256_of_array
from targetwise.progress import Progress
from targetwise.text import counted

Arrays = dict[str, np.ndarray]

#: Digits held out from training; as many as the demo samples, so that floor and cells are measured alike.
DIGITS_TEST = 512


def make(name: str, definition: Mapping[str, Any]) -> Arrays:
    """Return a data set's arrays: ``train`` and ``test`` (N, H, W, C) uint8, and their labels (N,) int64.

    Args:
        name: the data set's, as the configuration calls it, for messages.
        definition: its ``kind`` and what that kind needs.

    Raises:
        UserError: if the images cannot be had, or are not the ones their digests declare.
    """
    return KINDS[definition["kind"]](name, definition)


#: Side of a digit as scikit-learn has it.
DIGITS_SIZE = 8


def digits(size: int = DIGITS_SIZE, *, brightness: bool = False, tint: bool = False) -> Arrays:
    """Return scikit-learn's 1,797 handwritten digits, split 1,285 to 512 by a fixed permutation; by default 8×8×1.

    All is done in whole numbers and with RandomState, whose streams are frozen by numpy's policy.

    Args:
        size: a multiple of 8; each pixel becomes a square of pixels, so that means of squares give the digit back, no
            grey level is new, and all images of a channel lie in 64 dimensions.
        brightness: halve the contrast and lift every image by its own offset, uniform in 0 … 127: from dark to light.
        tint: three channels, each image's multiplied by its own three factors, uniform in 64/255 … 1.

    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels, 0 … 16, spread over 0 … 255.
    images = np.round(bunch.images * (255 / 16)).astype(np.int64)[..., None]
    if brightness:
        images = (images + 1) // 2 + np.random.RandomState(1).randint(0, 128, (len(images), 1, 1, 1))
    if tint:
        images = (images * np.random.RandomState(2).randint(64, 256, (len(images), 1, 1, 3)) + 127) // 255
    images = images.astype(np.uint8).repeat(size // DIGITS_SIZE, axis=1).repeat(size // DIGITS_SIZE, axis=2)
    return _split(images, bunch.target.astype(np.int64), DIGITS_TEST, seed=0)


def _digits(name: str, definition: Mapping[str, Any]) -> Arrays:
    return _as_declared(
        name, definition, digits(**{key: value for key, value in definition.items() if key != "kind"})
    )


def _spiral(name: str, definition: Mapping[str, Any]) -> Arrays:
    """Make a spiral's images; they have no labels, so all labels are 0."""
    count, held_out = definition["images"], definition["held_out"]
    images = spiral.images(count + held_out, definition["dimensions"])
    arrays = {"train": images[:count], "test": images[count:]}
    labels = {f"{split}_labels": np.zeros(len(array), dtype=np.int64) for split, array in arrays.items()}
    return _as_declared(name, definition, arrays | labels)


def _as_declared(name: str, definition: Mapping[str, Any], arrays: Arrays) -> Arrays:
    for split, array in arrays.items():
        found, declared = sha256_of_array(array), digests.declared(definition, split)
        if declared not in (None, found):
            raise UserError(f"dataset {name}: its {split} has SHA-256 {found}, but {declared} is declared")
    return arrays


def _cifar10(name: str, definition: Mapping[str, Any]) -> Arrays:
    hint = (
        f"On a machine without network: put cifar-10-python.tar.gz into the cache (docs/data.md), or lay a file over "
        f"the configuration with datasets.{name}.sources: [{{kind: file, path: …/cifar-10-python.tar.gz}}]"
    )
    return first_accepted(f"dataset {name}", definition["sources"], cifar10.read, hint)


def _images(name: str, definition: Mapping[str, Any]) -> Arrays:
    """Read a folder of the user's own images; they have no labels, so all labels are 0."""
    folder = Path(definition["folder"]).expanduser()
    size, channels, held_out = definition["size"], definition.get("channels", 3), definition["held_out"]
    files = list_images(folder)
    if len(files) < held_out + 2:
        raise UserError(
            f"dataset {name}: {folder} holds {counted(len(files), 'image')}, but {counted(held_out, 'image', 'are')} "
            "to be held out for testing and at least 2 must be left to train on"
        )
    images = np.empty((len(files), size, size, channels), dtype=np.uint8)
    with Progress(f"read {folder}", len(files), "image") as progress:
        for index, file in enumerate(files):
            image = open_image(file, str(file), channels)
            images[index] = fit(image, str(file), size, definition.get("filter"), definition.get("crop"))
            progress.advance()
    return _split(images, np.zeros(len(files), dtype=np.int64), held_out, definition.get("split_seed", 0))


def _split(images: np.ndarray, labels: np.ndarray, held_out: int, seed: int) -> Arrays:
    """Hold out the first ``held_out`` of a permutation; RandomState's stream is frozen by numpy's policy."""
    order = np.random.RandomState(seed).permutation(len(images))
    test, train = order[:held_out], order[held_out:]
    return {
        "train": images[train],
        "train_labels": labels[train],
        "test": images[test],
        "test_labels": labels[test],
    }


KINDS: dict[str, Callable[[str, Mapping[str, Any]], Arrays]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "images": _images,
    "spiral": _spiral,
}
