"""Which files of a cell are results of its present configuration, told from the digests in them and not from dates.

A cell's files come in parts, each made by one job: the training, and of every draw its samples and its row. A part's
first file says what the part was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell, Draw, TrainingKeys
from targetwise.data import store
from targetwise.data.digests import declared
from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import read_json, remedy, sha256_of_file
from targetwise.metric.rows import draw_key, read_row
from targetwise.outcome import read_curve, read_outcome

TRAINING, SAMPLES, ROW = "training", "samples", "row"

#: What the first file of samples and of a row must say.
SAYS = {
    SAMPLES: ("model_sha256", "samples_sha256", "sampling"),
    ROW: ("key", "model_sha256", "samples_sha256", "reference_sha256", "extractor_sha256"),
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
    for draw in cells.draws(config, cell.parameterization):
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
        """Prepare for the study of the whole configuration ``config``; its data must have a digest by now."""
        self.config = config
        self.specifications = cells.specifications(config)
        self.study = cells.RESULTS / config["study"]
        self._keys = TrainingKeys(_images_digest(config))

    def require(self, cell: Cell) -> None:
        """Make sure that all parts of a cell agree, as far as their first files tell.

        Raises:
            UserError: naming the first file that does not, or cannot be read.
        """
        before: Before = {}
        for part in parts(self.config, cell):
            facts = read_facts(part.facts, part.kind)
            if not self.holds(cell, part, facts, before):
                raise UserError(
                    f"{part.facts} is of another configuration, parameterization, data set or model than the "
                    f"present one; {remedy(part.facts)}"
                )
            before[part.kind, part.draw] = facts

    def holds(self, cell: Cell, part: Part, facts: Facts, before: Mapping[tuple[str, Draw | None], Facts]) -> bool:
        """Return whether a part was made from the present configuration and from the parts ``before`` it.

        Args:
            cell: of the study's grid.
            part: of the cell.
            facts: the content of its first file.
            before: the facts of the cell's other parts, by kind and draw; samples and rows need theirs.
        """
        if part.kind == TRAINING:
            # A training by somebody's own rule may record no key; then nothing can be said against it.
            return facts.get("key") in (None, self._keys.of(self.specifications[cell.folder / "cell.json"]))
        training, samples = before.get((TRAINING, None)), before.get((SAMPLES, part.draw))
        if training is None or facts["model_sha256"] != training["model_sha256"]:
            return False
        if part.kind == SAMPLES:
            assert part.draw is not None
            options = self.specifications[cells.sampling_file(self.study, cell.parameterization, part.draw.sampler)]
            specification = self.specifications[cell.folder / "cell.json"]
            key = self._keys.of_samples(specification, training, options, part.draw.number)
            return bool(facts["sampling"] == options and facts.get("key") in (None, key))
        if samples is None or facts["samples_sha256"] != samples["samples_sha256"]:
            return False
        return self._is_measured(cell, part, facts, samples)

    def _is_measured(self, cell: Cell, part: Part, row: Facts, samples: Facts) -> bool:
        """Return whether a row of these samples was measured as the configuration says."""
        path = store.ROOT / self.config["data"]["dataset"] / "reference" / f"{cells.reference_name(self.config)}.json"
        # Cells are restored without their reference; what the row says of it then cannot be contradicted.
        digests = {"images_sha256": row["reference_sha256"], "extractor_sha256": row["extractor_sha256"]}
        reference = read_json(path) if path.exists() else digests
        specification = self.specifications[cell.folder / "cell.json"]
        options = self.specifications[self.study / "metric.json"]
        return bool(row["key"] == draw_key(specification, samples, part.facts.parent.name, options, reference))


def _images_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of the training images: the declared one, or that of the prepared data set."""
    name = config["data"]["dataset"]
    return declared(config["datasets"][name], "train") or store.prepared_digest(name)
