"""What samples are compared with: the features of real images, their mean and their covariance.

Made once for each data set, split, extractor and implementation, and shared by all cells and studies. Features are
extracted in chunks that are kept as parts beside the result until it is whole, so a run that was killed goes on, and
several processes, or several machines that see the same folder, can share the work.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targetwise import cells
from targetwise.compute.device import choose
from targetwise.data import store
from targetwise.data.store import Images
from targetwise.errors import UserError
from targetwise.files import atomic, read_json, remedy, sha256_of_file, sha256_of_json, write_json
from targetwise.jobs.kept import Kept
from targetwise.jobs.once import once
from targetwise.jobs.parts import Parts
from targetwise.metric import extractors
from targetwise.metric.distance import moments
from targetwise.metric.extractors import Extractor
from targetwise.progress import Progress
from targetwise.provenance import environment

#: What the file beside the statistics must say.
FACTS = frozenset(
    {"dataset", "split", "first", "n", "image_shape", "images_sha256", "mode", "implementation"}
    | {"extractor", "extractor_sha256", "file_sha256"}
)

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
        extractor = extractors.load(self.facts["extractor"], device, self.facts["implementation"])
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
    implementation: str

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> "Selection":
        """Return what the content of ``metric.json`` asks for."""
        images = options["reference"]
        return cls(
            options["dataset"], images["split"], images.get("first"), options["extractor"], options["implementation"]
        )

    def images(self, root: Path) -> Images:
        """Load the images from ``root/<dataset>``."""
        images = store.load(root / self.dataset, self.split)
        return images if self.first is None else images.first(self.first)


def describe(facts: Mapping[str, Any]) -> str:
    """Return a reference's name for people, e.g. ``cifar10 train, first 2,000``."""
    first = f", first {facts['first']:,}" if facts["first"] is not None else ""
    return f"{facts['dataset']} {facts['split']}{first}"


def images_of(reference: Reference) -> Images:
    """Load the images that a reference was made of, with their labels.

    Raises:
        UserError: if the data set is missing, or holds other images now.
    """
    facts = reference.facts
    images = store.load(store.ROOT / facts["dataset"], facts["split"])
    images = images if facts["first"] is None else images.first(facts["first"])
    if images.digest != facts["images_sha256"]:
        raise UserError(f"{store.ROOT / facts['dataset']} holds other images than the reference was made of")
    return images


def load_reference(path: Path, asked: Selection | None = None) -> Reference:
    """Load reference statistics.

    Args:
        path: of the ``.npz``; its facts are beside it.
        asked: which reference it must be.

    Raises:
        UserError: if they are missing, damaged, of another selection or protocol, or not the ones the facts beside
            them record.
    """
    beside = path.with_suffix(".json")
    facts = read_json(beside)
    if not isinstance(facts, dict) or not facts.keys() >= FACTS:
        missing = min(FACTS - facts.keys()) if isinstance(facts, dict) else "anything"
        raise UserError(f"{beside} is damaged: it does not say {missing}; {remedy(beside)}")
    protocol = cells.PROTOCOL["reference"]
    if facts.get("protocol") != protocol:
        found = facts.get("protocol", "unknown")
        raise UserError(f"{path} was made by protocol {found}, but {protocol} is in force; {remedy(path)}")
    for name, wanted in asdict(asked).items() if asked else ():
        if facts[name] != wanted:
            raise UserError(f"{path} is a reference of {name} {facts[name]}, but metric.json asks for {wanted}")
    if not path.exists() or sha256_of_file(path) != facts["file_sha256"]:
        raise UserError(f"{path} is missing or damaged; {remedy(path)}")
    with np.load(path, allow_pickle=False) as arrays:
        return Reference(facts, arrays["features"], arrays["mean"], arrays["covariance"])


def is_current(selection: Selection, path: Path, root: Path = store.ROOT) -> bool:
    """Return whether ``path`` is the reference of ``selection``, of the present images, weights and protocol."""
    facts = path.with_suffix(".json")
    if not (path.exists() and facts.exists()):
        return False
    key = _key(selection, selection.images(root), extractors.DIGESTS[selection.extractor])
    return bool(read_json(facts).get("key") == key)


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
        output: parts are in ``state/<name>`` beside it meanwhile.
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
    extractor = extractors.load(selection.extractor, device, selection.implementation)
    key = _key(selection, images, extractor.digest)
    work = _Work(selection, root, images.images, extractor, device)
    if shard is not None:
        work.extract(Parts(output.parent / "state" / output.stem, key), processes, shard)
        return False

    def publish(kept: Kept, parts: Parts) -> None:
        features = work.extract(parts, processes, (0, 1))
        _write(selection, images, extractor, key, features, kept.path(output))

    once(output.parent, output.stem, key, [output, output.with_suffix(".json")], publish)
    return True


def _key(selection: Selection, images: Images, extractor_sha256: str) -> str:
    return sha256_of_json(
        {
            **asdict(selection),
            "protocol": cells.PROTOCOL["reference"],
            "images_sha256": images.digest,
            "extractor_sha256": extractor_sha256,
            "chunk": CHUNK,
        }
    )


def _write(
    selection: Selection, images: Images, extractor: Extractor, key: str, features: np.ndarray, output: Path
) -> None:
    mean, covariance = moments(features)
    with atomic(output) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, mean=mean, covariance=covariance)
    facts: Mapping[str, Any] = {
        "key": key,
        "protocol": cells.PROTOCOL["reference"],
        "dataset": selection.dataset,
        "split": selection.split,
        "first": selection.first,
        "n": len(features),
        "image_shape": list(images.images.shape[1:]),
        "images_sha256": images.digest,
        "mode": extractor.mode(images.images.shape[1:]),
        "implementation": extractor.implementation,
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "file_sha256": sha256_of_file(output),
        "environment": environment(),
    }
    write_json(output.with_suffix(".json"), facts)


@dataclass
class _Work:
    """The extraction of a reference's features, chunk by chunk, here or in several processes."""

    selection: Selection
    root: Path
    images: np.ndarray
    extractor: Extractor
    device: torch.device

    def extract(self, parts: Parts, processes: int, shard: tuple[int, int]) -> np.ndarray:
        """Extract what is missing of a shard's chunks into ``parts``, and return their features, (n, D)."""
        chunks = range(shard[0], -(-len(self.images) // CHUNK), shard[1])
        missing = [chunk for chunk in chunks if parts.read(_name(chunk)) is None]
        with Progress("reference", len(chunks), "part", len(chunks) - len(missing)) as progress:
            if processes == 1 or self.device.type != "cpu":
                for chunk in missing:
                    self.extract_chunk(parts, chunk)
                    progress.advance()
            else:
                # Spawned, because a fork of a process that has used torch's threads can hang.
                context = multiprocessing.get_context("spawn")
                arguments = (self.selection, self.root, parts)
                with ProcessPoolExecutor(processes, context, _begin_worker, arguments) as pool:
                    for _ in pool.map(_extract, missing):
                        progress.advance()
        features = [parts.read(_name(chunk)) for chunk in chunks]
        if any(each is None for each in features):
            raise UserError(
                f"features in {parts.folder} were damaged as soon as they were written; is the disk full?"
            )
        return np.concatenate([each for each in features if each is not None] or [np.zeros((0, 0), np.float32)])

    def extract_chunk(self, parts: Parts, chunk: int) -> None:
        """Extract one chunk's features into ``parts``."""
        some = self.images[chunk * CHUNK : (chunk + 1) * CHUNK]
        parts.write(_name(chunk), self.extractor.features(some, self.device))


def _name(chunk: int) -> str:
    return f"{chunk:05d}"


_worker: tuple[_Work, Parts]


def _begin_worker(selection: Selection, root: Path, parts: Parts) -> None:
    global _worker
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    device = choose(threads=1)
    extractor = extractors.load(selection.extractor, device, selection.implementation)
    _worker = _Work(selection, root, selection.images(root).images, extractor, device), parts


def _end_with(parent: int) -> None:
    """End this process when its parent has been killed: nobody else would, and its network fills the memory."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _extract(chunk: int) -> None:
    work, parts = _worker
    work.extract_chunk(parts, chunk)
