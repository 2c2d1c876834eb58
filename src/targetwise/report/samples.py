"""What the page shows of samples: a column per variant, and in each row what became of one latent."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from targetwise.cells import Cell, Draw
from targetwise.cells.agreement import Agreement
from targetwise.data import store
from targetwise.data.samples import load_samples
from targetwise.files import read_whole
from targetwise.metric.neighbours import kth_neighbours
from targetwise.report.pictures import is_picture, png, projection, tile
from targetwise.report.words import records

#: Latents of a column: so many, or as few as keep the page's images below the whole, but never less than the least.
MOST, LEAST, WHOLE = 16, 4, 2400

PROJECTION_SIDE = 256

#: Training images that are looked through at a time: of CIFAR-10, 60 MB.
BLOCK = 5000


def columns(agreement: Agreement, frame: pd.DataFrame, real: np.ndarray | None) -> dict[str, list[dict[str, Any]]]:
    """Return by setting a column for each variant: the first samples of its first draw.

    The seed is one that all variants have, if there is one. Beside each sample stands the training image that is
    nearest to it, pixel by pixel.

    Args:
        agreement: of the study.
        frame: of :func:`targetwise.report.table.table`.
        real: the training set, of :func:`real_images`.
    """
    count = latents(frame)
    found: dict[str, list[dict[str, Any]]] = {}
    for setting, here in frame.groupby("setting", sort=False):
        archives = _archives(agreement, here)
        having = [set(seeds) for seeds in archives.values() if seeds]
        common = sorted(set.intersection(*having)) if having else []
        found[str(setting)] = [
            _column(name, seeds, common[0] if common and seeds else next(iter(seeds), None), real, count)
            for name, seeds in archives.items()
        ]
    _add_nearest([column for each in found.values() for column in each], real)
    return found


def latents(frame: pd.DataFrame) -> int:
    """Return how many images a column has."""
    strips = len(frame[["setting", "parameterization"]].drop_duplicates())
    return max(LEAST, min(MOST, WHOLE // max(1, strips)))


def real_images(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return the training set, (N, H, W, C) uint8; None until it is there."""
    folder = store.ROOT / config["data"]["dataset"]
    return store.load(folder, "train").images if (folder / "dataset.npz").exists() else None


def real_column(real: np.ndarray, count: int) -> Markup:
    """Return the first images of the training set as one column."""
    return _strip(real[:count]) if is_picture(real) else _points(real, real)


def _archives(agreement: Agreement, frame: pd.DataFrame) -> dict[str, dict[int, Path]]:
    """Return by variant and seed where the first draw lies, if it is of the present configuration."""
    config = agreement.config
    archives: dict[str, dict[int, Path]] = {name: {} for name in config["grid"]["parameterizations"]}
    for row in records(frame[frame["draw"] == 0]):
        cell, draw = Cell(config["study"], row.parameterization, row.scale, row.seed), Draw(row.sampling, 0)
        path = cell.folder / "samples" / f"{draw.name}.npz"
        facts, training = read_whole(path.with_suffix(".json")), read_whole(cell.folder / "training.json")
        if not (facts and training and path.exists() and facts["images"]):
            continue
        if agreement.is_trained(cell, training) and agreement.is_sampled(cell, draw, facts, training):
            archives[cell.parameterization][cell.seed] = path
    return archives


def _column(
    name: str, archives: Mapping[int, Path], seed: int | None, real: np.ndarray | None, count: int
) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "seed": seed, "image": None, "nearest": None, "projected": False}
    if seed is None:
        return column
    images = load_samples(archives[seed])
    if is_picture(images):
        return {**column, "shown": images[:count], "image": _strip(images[:count])}
    return {**column, "image": _points(images, images if real is None else real), "projected": True}


def _add_nearest(found: list[dict[str, Any]], real: np.ndarray | None) -> None:
    """Add to each column of pictures the training images that are nearest, all found at once."""
    shown = [column.pop("shown") if "shown" in column else None for column in found]
    pictures = [images for images in shown if images is not None]
    if real is None or not pictures:
        return
    flat = _flat(np.concatenate(pictures))
    least, places = np.full(len(flat), np.inf), np.zeros(len(flat), dtype=np.int64)
    for start in range(0, len(real), BLOCK):
        squared, nearest = kth_neighbours(flat, 1, _flat(real[start : start + BLOCK]))
        nearer = squared < least
        least[nearer], places[nearer] = squared[nearer], start + nearest[nearer]
    first = 0
    for column, images in zip(found, shown, strict=True):
        if images is not None:
            column["nearest"] = _strip(real[places[first : first + len(images)]])
            first += len(images)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def _strip(images: np.ndarray) -> Markup:
    """Return images below each other as one picture, each pixel once: the page enlarges without smoothing."""
    return _uri(tile(images, columns=1))


def _points(images: np.ndarray, real: np.ndarray) -> Markup:
    """Return images whose channels are no colours as points of the plane in which the training images vary most."""
    return _uri(projection(images, real, PROJECTION_SIDE))


def _uri(picture: np.ndarray) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png(picture)).decode()
