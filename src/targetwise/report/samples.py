"""What the page shows of samples: a column per variant, and in each row what became of one latent."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from targetwise.cells import Cell, Draw, draws, grid
from targetwise.cells.agreement import Agreement
from targetwise.data import store
from targetwise.data.samples import first_samples, load_samples
from targetwise.files import canonical_json, read_whole
from targetwise.metric.neighbours import kth_neighbours
from targetwise.recipe import variants
from targetwise.recipe.samplings import way
from targetwise.report.pictures import is_picture, png, projection, tile
from targetwise.report.words import records

#: Latents of a column: so many, or as few as keep the page's images below the whole, but never less than the least.
MOST, LEAST, WHOLE = 16, 4, 2400

#: Latents that stand below each other; the next ones begin a block beside, where there is room.
BLOCK = 8

PROJECTION_SIDE = 256

#: Training images that are looked through at a time: of CIFAR-10, 60 MB.
REAL_AT_ONCE = 5000


def columns(agreement: Agreement, frame: pd.DataFrame, real: np.ndarray | None) -> dict[str, list[dict[str, Any]]]:
    """Return by setting a column for each variant: the first samples of its first draw, a picture for each block.

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


def courses(config: Mapping[str, Any], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the settings in which samples are shown, those together that differ only in how far training was.

    Args:
        config: the whole configuration.
        frame: of :func:`targetwise.report.table.table`.

    Returns:
        Of each course its ``name``; its ``stops``, pairs of a setting and the step after which its weights were kept,
        in the order of training, where the end of every variant's is None; and ``seconds``, what sampling and
        measuring at all stops but the last took.
    """
    found: dict[Any, list[Any]] = {}
    for each in records(frame[["scale", "sampling", "setting"]].drop_duplicates()):
        course = each.scale, canonical_json(way(config, each.sampling))
        found.setdefault(course, []).append((_stop(config, each.sampling), each))
    scales = [scale for scale, _ in found]
    listing = []
    for (scale, _), stops in found.items():
        stops.sort(key=lambda stop: stop[0] or math.inf)
        alone = len(stops) > 1 and scales.count(scale) == 1
        listing.append(
            {
                "name": scale if alone else stops[-1][1].setting,
                "stops": [(each.setting, step) for step, each in stops],
                "seconds": sum(_seconds(config, each) for step, each in stops if step),
            }
        )
    return listing


def _stop(config: Mapping[str, Any], sampling: str) -> int | None:
    """Return the step whose weights a sampling shows; None if they are those at the end of every training."""
    for name in config["grid"]["parameterizations"]:
        snapshot = variants.samplings(config, name).get(sampling, {}).get("snapshot")
        if snapshot not in (None, variants.settings(config, name)["training"]["steps"]):
            return int(snapshot)
    return None


def _seconds(config: Mapping[str, Any], setting: Any) -> float:
    """Return what sampling and measuring in a setting took, over all cells."""
    seconds = 0.0
    for cell in grid(config):
        for draw in draws(config, cell.parameterization):
            if (cell.scale, draw.sampler) == (setting.scale, setting.sampling):
                files = (cell.folder / folder / f"{draw.name}.json" for folder in ("samples", "fid"))
                seconds += sum((read_whole(path) or {}).get("seconds", 0.0) for path in files)
    return seconds


def latents(frame: pd.DataFrame) -> int:
    """Return how many images a column has."""
    strips = len(frame[["setting", "parameterization"]].drop_duplicates())
    return max(LEAST, min(MOST, WHOLE // max(1, strips)))


def real_images(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return the training set, (N, H, W, C) uint8; None until it is there."""
    folder = store.ROOT / config["data"]["dataset"]
    return store.load(folder, "train").images if (folder / "dataset.npz").exists() else None


def real_column(real: np.ndarray, count: int) -> list[Markup]:
    """Return the first images of the training set as a column."""
    return _strips(real[:count]) if is_picture(real) else [_points(real, real)]


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
    column: dict[str, Any] = {"name": name, "seed": seed, "images": [], "nearest": [], "projected": False}
    if seed is None:
        return column
    images = first_samples(archives[seed], count)
    if is_picture(images):
        return {**column, "shown": images, "images": _strips(images)}
    images = load_samples(archives[seed])
    return {**column, "images": [_points(images, images if real is None else real)], "projected": True}


def _add_nearest(found: list[dict[str, Any]], real: np.ndarray | None) -> None:
    """Add to each column of pictures the training images that are nearest, all found at once."""
    shown = [column.pop("shown") if "shown" in column else None for column in found]
    pictures = [images for images in shown if images is not None]
    if real is None or not pictures:
        return
    flat = _flat(np.concatenate(pictures))
    least, places = np.full(len(flat), np.inf), np.zeros(len(flat), dtype=np.int64)
    for start in range(0, len(real), REAL_AT_ONCE):
        squared, nearest = kth_neighbours(flat, 1, _flat(real[start : start + REAL_AT_ONCE]))
        nearer = squared < least
        least[nearer], places[nearer] = squared[nearer], start + nearest[nearer]
    first = 0
    for column, images in zip(found, shown, strict=True):
        if images is not None:
            column["nearest"] = _strips(real[places[first : first + len(images)]])
            first += len(images)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def _strips(images: np.ndarray) -> list[Markup]:
    """Return images below each other, a picture for each block; each pixel once: the page enlarges them sharply."""
    return [_uri(tile(images[first : first + BLOCK], columns=1)) for first in range(0, len(images), BLOCK)]


def _points(images: np.ndarray, real: np.ndarray) -> Markup:
    """Return images whose channels are no colours as points of the plane in which the training images vary most."""
    return _uri(projection(images, real, PROJECTION_SIDE))


def _uri(picture: np.ndarray) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png(picture)).decode()
