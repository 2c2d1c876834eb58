"""Whether files of a cell are results of its present configuration, judged by the digests in them, never by dates.

This is the one place that answers it. A cell's files come in parts, each made by one job: the training, and of every
draw its samples and its row. A part's first file says what the part was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from targetwise.cells.grid import RESULTS, Cell, Draw, draws, reference_name, sampling_file
from targetwise.cells.keys import Keys
from targetwise.cells.outcome import read_curve, read_outcome
from targetwise.cells.rows import read_row
from targetwise.cells.specification import specifications
from targetwise.data import store
from targetwise.data.digests import declared
from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import read_json, read_whole, remedy, sha256_of_file

TRAINING, SAMPLES, ROW = "training", "samples", "row"

#: What the first file of samples and of a row must say.
SAYS = {
    SAMPLES: ("key", "draw", "status", "reason", "model_sha256", "samples_sha256"),
    ROW: (
        *("key", "draw", "status", "reason", "model_sha256", "samples_sha256"),
        *("reference_sha256", "extractor_sha256"),
    ),
}

Facts = dict[str, Any]
Before = dict[tuple[str, Draw | None], Facts]


@dataclass(frozen=True)
class Part:
    """Files that one job makes together.

    Attributes:
        kind: ``TRAINING``, ``SAMPLES`` or ``ROW``.
        draw: of samples and row; None for the training.
        facts: the JSON file that says what the part was made from.
        others: the rest.
    """

    kind: str
    draw: Draw | None
    facts: Path
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return all files of the part."""
        return self.facts, *self.others


def parts(config: Mapping[str, Any], cell: Cell) -> list[Part]:
    """Return a cell's parts, each after those it is made from."""
    folder = cell.folder
    found = [Part(TRAINING, None, folder / "training.json", (folder / "model.safetensors", folder / "train.jsonl"))]
    for draw in draws(config, cell.parameterization):
        samples = folder / "samples" / f"{draw.name}.npz"
        found.append(Part(SAMPLES, draw, samples.with_suffix(".json"), (samples,)))
        found.append(Part(ROW, draw, folder / "fid" / f"{draw.name}.json"))
    return found


def read_facts(path: Path, kind: str) -> Facts:
    """Read the first file of a part.

    Raises:
        UserError: if it is missing, damaged, or does not say what it must.
    """
    if kind == TRAINING:
        return read_outcome(path)
    facts = read_json(path)
    missing = [name for name in SAYS[kind] if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise UserError(f"{path} is damaged: it does not say {missing[0]}; {remedy(path)}")
    return dict(facts)


def require_whole(part: Part) -> None:
    """Make sure that the files of a part are what they say of one another.

    Raises:
        UserError: if one is missing or damaged.
    """
    facts = read_facts(part.facts, part.kind)
    if part.kind == TRAINING:
        model, curve = part.others
        if not model.exists() or sha256_of_file(model) != facts["model_sha256"]:
            raise UserError(f"{model} is missing, or is not the file that {part.facts} records")
        if not curve.exists():
            raise UserError(f"{curve} does not exist")
        read_curve(curve)
    elif part.kind == SAMPLES:
        load_samples(part.others[0])
    else:
        read_row(part.facts)


class Agreement:
    """Holds parts of a study's cells against its configuration, and against the parts that they were made from."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepare for the study of the whole configuration ``config``.

        Where its data set has no declared digest and is not prepared, nothing agrees with it.
        """
        self.config = config
        self.specifications = specifications(config)
        self.study = RESULTS / config["study"]
        self._keys = Keys(_images_digest(config))
        self._training_keys: dict[Cell, str] = {}

    def require(self, cell: Cell) -> Before:
        """Return the facts of a cell's parts, and make sure that all agree, as far as their first files tell.

        Raises:
            UserError: naming the first file that does not, or cannot be read.
        """
        before: Before = {}
        for part in parts(self.config, cell):
            self.require_part(cell, part, before)
        return before

    def require_part(self, cell: Cell, part: Part, before: Before) -> None:
        """Add a part's facts to ``before``, and make sure that they agree; see :meth:`require`."""
        facts = read_facts(part.facts, part.kind)
        if not self.holds(cell, part, facts, before):
            raise UserError(
                f"{part.facts} is of another configuration, parameterization, data set or model than the "
                f"present one; {remedy(part.facts)}"
            )
        before[part.kind, part.draw] = facts

    def current(self, cell: Cell, part: Part, before: Before, *, whole: bool = True) -> Facts | None:
        """Return the facts of a part that is here and agrees, and add them to ``before``; None otherwise.

        Args:
            cell: of the study's grid.
            part: of the cell.
            before: the facts of the parts that it is made from.
            whole: whether its files must also be what they say, which reads them all.
        """
        try:
            facts = read_facts(part.facts, part.kind)
            if not self.holds(cell, part, facts, before):
                return None
            if whole:
                require_whole(part)
        except UserError:
            return None
        before[part.kind, part.draw] = facts
        return facts

    def training_key(self, cell: Cell) -> str:
        """Return the digest of all that decides a cell's training now."""
        if cell not in self._training_keys:
            self._training_keys[cell] = self._keys.of(self.specifications[cell.folder / "cell.json"])
        return self._training_keys[cell]

    def is_trained(self, cell: Cell, training: Mapping[str, Any]) -> bool:
        """Return whether a training is of the present configuration: its key says so.

        A training by a user's own rule may record none, and is then accepted.
        """
        return training.get("key") in (None, self.training_key(cell))

    def is_sampled(self, cell: Cell, draw: Draw, samples: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
        """Return whether samples, as the facts beside them say, are of the present configuration and training."""
        return (samples.get("key"), samples.get("model_sha256")) == (
            self._samples_key(cell, draw, training),
            training["model_sha256"],
        )

    def is_measured(self, cell: Cell, draw: Draw, row: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
        """Return whether a row is of the present configuration, and of samples of it and of this training.

        The samples themselves are not asked, because they may be gone: the row's key is made of theirs.
        """
        if any(name not in row for name in SAYS[ROW]) or row["model_sha256"] != training["model_sha256"]:
            return False
        # Cells are restored without their reference; what the row says of it then cannot be contradicted.
        digests = {"images_sha256": row["reference_sha256"], "extractor_sha256": row["extractor_sha256"]}
        reference = self._reference or digests
        samples = {**row, "key": self._samples_key(cell, draw, training)}
        specification = self.specifications[cell.folder / "cell.json"]
        metric = self.specifications[self.study / "metric.json"]
        return bool(row["key"] == self._keys.of_row(specification, samples, draw.sampler, metric, reference))

    def is_probed(self, cell: Cell, probed: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
        """Return whether a ``probe.json`` is of the present configuration, images and files, and of this training."""
        name = self.config["data"]["dataset"]
        # Without the images, what the record says of them cannot be contradicted.
        images = store.split_digests(name) if _is_prepared(name) else probed["images_sha256"]
        specification = self.specifications[cell.folder / "cell.json"]
        options = self.specifications.get(self.study / "probes.json", {"names": []})
        return bool(probed["key"] == self._keys.of_probes(specification, training["model_sha256"], options, images))

    def holds(self, cell: Cell, part: Part, facts: Mapping[str, Any], before: Before) -> bool:
        """Return whether a part was made from the present configuration and from the parts ``before`` it.

        Args:
            cell: of the study's grid.
            part: of the cell.
            facts: the content of its first file.
            before: the facts of the cell's other parts, by kind and draw; samples and rows need theirs.
        """
        if part.draw is None:
            return self.is_trained(cell, facts)
        training, samples = before.get((TRAINING, None)), before.get((SAMPLES, part.draw))
        if training is None:
            return False
        if part.kind == SAMPLES:
            return self.is_sampled(cell, part.draw, facts, training)
        if samples is None or facts["samples_sha256"] != samples["samples_sha256"]:
            return False
        return self.is_measured(cell, part.draw, facts, training)

    def _samples_key(self, cell: Cell, draw: Draw, training: Mapping[str, Any]) -> str:
        options = self.specifications[sampling_file(self.study, cell.parameterization, draw.sampler)]
        return self._keys.of_samples(self.specifications[cell.folder / "cell.json"], training, options, draw.number)

    @cached_property
    def _reference(self) -> Facts | None:
        """The facts of the reference that is here, if they say what rows are measured against."""
        folder = store.ROOT / self.config["data"]["dataset"] / "reference"
        facts = read_whole(folder / f"{reference_name(self.config)}.json")
        return facts if facts and {"images_sha256", "extractor_sha256"} <= facts.keys() else None


def _images_digest(config: Mapping[str, Any]) -> str | None:
    """Return the digest of the training images that are here, or else the declared one."""
    name = config["data"]["dataset"]
    return store.prepared_digest(name) if _is_prepared(name) else declared(config["datasets"][name], "train")


def _is_prepared(name: str) -> bool:
    return (store.ROOT / name / "manifest.json").exists()
