"""What samples are compared with: the features of real images, their mean and their covariance.

Made once for each data set, split, extractor and path, and shared by all cells and studies. Features are extracted in
chunks that lie as parts beside the result until it is whole, so a run that was killed goes on, and several processes,
or several machines that see the same folder, can share the work.
"""

import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targetwise.compute.device import choose
from targetwise.data import store
from targetwise.data.store import Images
from targetwise.errors import UserError
from targetwise.files import atomic, canonical_json, read_json, sha256_of_file, write_json, write_text
from targetwise.metric import extractors
from targetwise.metric.distance import moments
from targetwise.metric.extractors import Extractor
from targetwise.progress import Progress

#: Images per part; on one CPU core some ten seconds of Inception.
CHUNK = 64


@dataclass(frozen=True)
class Reference:
    """The features a study's samples are compared with: (n, D) fp32, their mean (D,) and covariance (D, D) fp64."""

    facts: dict[str, Any]
    features: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    def extractor(self, device: torch.device) -> Extractor:
        """Return the extractor that the reference was made with.

        Raises:
            UserError: if its weights have changed since.
        """
        extractor = extractors.load(self.facts["extractor"], device, self.facts["path"])
        if extractor.digest != self.facts["extractor_sha256"]:
            raise UserError(
                f"the reference was made with extractor {extractor.name} {self.facts['extractor_sha256'][:12]}, but "
                f"its weights are now {extractor.digest[:12]}; delete the reference and run again"
            )
        return extractor


@dataclass(frozen=True)
class Selection:
    """Which images a reference is of, and what extracts their features."""

    dataset: str
    split: str
    first: int | None
    extractor: str
    path: str

    def images(self, root: Path) -> Images:
        """Load the images from ``root/<dataset>``."""
        images = store.load(root / self.dataset, self.split)
        return images if self.first is None else images.first(self.first)


def load_reference(path: Path) -> Reference:
    """Load reference statistics.

    Raises:
        UserError: if they are missing, damaged, or not the ones the facts beside them tell of.
    """
    facts = read_json(path.with_suffix(".json"))
    if not path.exists() or sha256_of_file(path) != facts["file_sha256"]:
        raise UserError(f"{path} is missing or damaged; delete it and run again, it is made anew")
    with np.load(path, allow_pickle=False) as arrays:
        return Reference(facts, arrays["features"], arrays["mean"], arrays["covariance"])


def make(
    selection: Selection,
    output: Path,
    *,
    processes: int = 1,
    shard: tuple[int, int] | None = None,
    root: Path = store.ROOT,
) -> bool:
    """Write the reference to ``output`` (.npz) and the facts about it beside it (.json).

    Args:
        selection: what it is of.
        output: parts lie in ``<output without ending>.parts`` meanwhile.
        processes: on this machine, of one thread each; a GPU is fed by one.
        shard: (k, n) extracts only the parts whose number leaves k when divided by n, and publishes nothing: for n
            machines at once, before a last call without it.
        root: the folder of data sets.

    Returns:
        Whether the reference was written.

    Raises:
        UserError: if there are fewer than two images, or data or weights do not fit.
    """
    device = choose(threads=1)
    images = selection.images(root)
    extractor = extractors.load(selection.extractor, device, selection.path)
    parts = Parts(output.with_suffix(".parts"), len(images.images), _key(selection, images, extractor))
    missing = parts.missing()
    if shard is not None:
        missing = [part for part in missing if part % shard[1] == shard[0]]
    with Progress(f"reference {output.stem}", parts.count, "part", parts.count - len(missing)) as progress:
        if processes == 1 or device.type != "cpu":
            for part in missing:
                parts.write(part, extractor.features(images.images[parts.range(part)], device))
                progress.advance()
        else:
            # Spawned, because a fork of a process that has used torch's threads can hang.
            context = multiprocessing.get_context("spawn")
            arguments = (selection, root, parts)
            with ProcessPoolExecutor(processes, context, _begin_worker, arguments) as pool:
                for _ in pool.map(_extract, missing):
                    progress.advance()
    if shard is not None:
        return False
    _publish(selection, images, extractor, parts.collect(), output)
    shutil.rmtree(parts.folder)
    return True


class Parts:
    """A folder of feature parts; those of another selection, data or network are removed."""

    def __init__(self, folder: Path, images: int, key: str) -> None:
        """Use ``folder`` for the features of as many ``images``; ``key`` tells all that decides them."""
        self.folder = folder
        self.images = images
        self.count = -(-images // CHUNK)
        marker = folder / "key.json"
        if not marker.exists() or marker.read_text(encoding="utf-8") != key:
            shutil.rmtree(folder, ignore_errors=True)
            write_text(marker, key)

    def range(self, part: int) -> slice:
        """Return which images part ``part`` is of."""
        return slice(part * CHUNK, min((part + 1) * CHUNK, self.images))

    def missing(self) -> list[int]:
        """Return the parts that are not there yet."""
        return [part for part in range(self.count) if not self._file(part).exists()]

    def write(self, part: int, features: np.ndarray) -> None:
        """Save one part, whole or not at all."""
        with atomic(self._file(part)) as temporary, temporary.open("wb") as file:
            np.save(file, features, allow_pickle=False)

    def collect(self) -> np.ndarray:
        """Return all features in order, (images, D).

        Raises:
            UserError: if a part is damaged; it is removed, so that the next run makes it anew.
        """
        arrays = []
        for part in range(self.count):
            expected = self.range(part)
            try:
                array = np.load(self._file(part), allow_pickle=False)
                if len(array) != expected.stop - expected.start:
                    raise ValueError(f"{len(array)} rows")
            except (OSError, ValueError, EOFError) as error:
                self._file(part).unlink(missing_ok=True)
                raise UserError(f"{self._file(part)} is damaged ({error}); run again, it is made anew") from error
            arrays.append(array)
        return np.concatenate(arrays)

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:05d}.npy"


def _key(selection: Selection, images: Images, extractor: Extractor) -> str:
    return canonical_json(
        {**asdict(selection), "images_sha256": images.digest, "extractor_sha256": extractor.digest, "chunk": CHUNK}
    )


def _publish(selection: Selection, images: Images, extractor: Extractor, features: np.ndarray, output: Path) -> None:
    mean, covariance = moments(features)
    with atomic(output) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, mean=mean, covariance=covariance)
    facts: Mapping[str, Any] = {
        "dataset": selection.dataset,
        "split": selection.split,
        "first": selection.first,
        "n": len(features),
        "image_shape": list(images.images.shape[1:]),
        "images_sha256": images.digest,
        "metric": extractor.metric,
        "mode": extractor.mode,
        "path": extractor.path,
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "file_sha256": sha256_of_file(output),
    }
    write_json(output.with_suffix(".json"), facts)


@dataclass
class _Worker:
    """What a process of the pool keeps from part to part."""

    images: np.ndarray
    extractor: Extractor
    device: torch.device
    parts: Parts


_worker: _Worker


def _begin_worker(selection: Selection, root: Path, parts: Parts) -> None:
    global _worker
    device = choose(threads=1)
    extractor = extractors.load(selection.extractor, device, selection.path)
    _worker = _Worker(selection.images(root).images, extractor, device, parts)


def _extract(part: int) -> None:
    features = _worker.extractor.features(_worker.images[_worker.parts.range(part)], _worker.device)
    _worker.parts.write(part, features)
