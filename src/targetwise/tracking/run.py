"""A cell as the run of an experiment: plain values that know no tracker."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from targetwise.cells import Cell
from targetwise.data.samples import load_samples
from targetwise.files import sha256_of_text
from targetwise.report.pictures import is_picture, png, projection, tile

GRID_COLUMNS, GRID_IMAGES, GRID_WIDTH = 16, 64, 640


class Point(NamedTuple):
    """One value of a curve; ``time`` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


@dataclass(frozen=True)
class Dataset:
    """The images a cell is trained on; ``sha256`` is that of their pixels."""

    name: str
    sha256: str
    images: int


@dataclass(frozen=True)
class Artifact:
    """A file of a run; ``digest`` changes with its content."""

    name: str
    source: Path
    digest: str

    def content(self) -> bytes:
        """Return the source's bytes; of a sample set the first images, as a picture."""
        if self.source.suffix != ".npz":
            return self.source.read_bytes()
        images = load_samples(self.source)
        if not is_picture(images):
            return png(projection(images, images, GRID_WIDTH))
        images = images[:GRID_IMAGES]
        zoom = max(1, GRID_WIDTH // (GRID_COLUMNS * images.shape[2]))
        return png(tile(images, GRID_COLUMNS, zoom))


@dataclass(frozen=True)
class Run:
    """One cell as the run of an experiment.

    ``specification`` is the digest of all that decides the result: another one is another run. ``start`` and ``end``
    are milliseconds since 1970; while the cell is worked on, ``end`` is its last sign of life. ``commit`` is that of
    the code which trained it.
    """

    cell: Cell
    specification: str
    state: str
    start: int
    end: int
    commit: str | None
    tags: dict[str, str]
    parameters: dict[str, str]
    points: list[Point]
    dataset: Dataset | None
    artifacts: list[Artifact] = field(default_factory=list)

    @cached_property
    def digest(self) -> str:
        """Return the digest of everything that the run says."""
        return digest_of(
            [
                *(self.specification, self.state, self.start, self.end, self.commit),
                *(self.tags, self.parameters, self.points),
                self.dataset and [self.dataset.name, self.dataset.sha256],
                [[artifact.name, artifact.digest] for artifact in self.artifacts],
            ]
        )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of plain values, in hex; thousands of points take a millisecond."""
    return sha256_of_text(json.dumps(content, sort_keys=True))
