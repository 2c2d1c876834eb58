"""Which files of a cell are results of its present configuration, told from the digests in them and not from dates.

A cell's files come in parts, each made by one job: the training, and of every draw its samples and its row. A part's
first file says what the part was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.cells import Cell, TrainingKeys
from targetwise.data import store
from targetwise.data.digests import declared
from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import read_json, remedy, sha256_of_file
from targetwise.metric.rows import describe, read_row
from targetwise.outcome import read_curve, read_outcome

TRAINING, SAMPLES, ROW = "training", "samples", "row"

#: What the first file of samples and of a row must say.
SAYS = {
    SAMPLES: ("model_sha256", "samples_sha256", "sampling"),
    ROW: ("model_sha256", "samples_sha256", "extractor", "path", "reference"),
}

Facts = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Files that one job makes together.

    Attributes:
        kind: ``TRAINING``, ``SAMPLES`` or ``ROW``.
        draw: of samples and row; 0 for the training.
        facts: the JSON file that says what the part was made from.
        others: the rest.
    """

    kind: str
    draw: int
    facts: Path
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return all files of the part."""
        return self.facts, *self.others


def parts(config: Mapping[str, Any], cell: Cell) -> list[Part]:
    """Return a cell's parts, each after those it is made from."""
    folder, sampler = cell.folder, cells.sampler_name(config)
    found = [Part(TRAINING, 0, folder / "training.json", (folder / "model.safetensors", folder / "train.jsonl"))]
    for draw in range(config["sampling"]["draws"]):
        samples = folder / "samples" / sampler / f"draw{draw}.npz"
        found.append(Part(SAMPLES, draw, samples.with_suffix(".json"), (samples,)))
        found.append(Part(ROW, draw, folder / "fid" / sampler / f"draw{draw}.json"))
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
        before: dict[tuple[str, int], Facts] = {}
        for part in parts(self.config, cell):
            facts = read_facts(part.facts, part.kind)
            if not self.holds(cell, part, facts, before):
                raise UserError(
                    f"{part.facts} is of another configuration, parameterization, data set or model than the "
                    f"present one; {remedy(part.facts)}"
                )
            before[part.kind, part.draw] = facts

    def holds(self, cell: Cell, part: Part, facts: Facts, before: Mapping[tuple[str, int], Facts]) -> bool:
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
        training, samples = before.get((TRAINING, 0)), before.get((SAMPLES, part.draw))
        if training is None or facts["model_sha256"] != training["model_sha256"]:
            return False
        if part.kind == SAMPLES:
            options = self.specifications[self.study / "sampling.json"]
            specification = self.specifications[cell.folder / "cell.json"]
            key = self._keys.of_samples(specification, training, options, part.draw)
            return bool(facts["sampling"] == options and facts.get("key") in (None, key))
        return samples is not None and facts["samples_sha256"] == samples["samples_sha256"] and self._measured(facts)

    def _measured(self, row: Facts) -> bool:
        """Return whether a row was measured as the configuration says."""
        metric, dataset = self.config["metric"], self.config["data"]["dataset"]
        asked = {"dataset": dataset, "split": metric["reference"]["split"], "first": metric["reference"].get("first")}
        return (row["extractor"], row["path"], row["reference"]) == (
            metric["extractor"],
            metric["path"],
            describe(asked),
        )


def _images_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of the training images: the declared one, or that of the prepared data set."""
    name = config["data"]["dataset"]
    return declared(config["datasets"][name], "train") or store.prepared_digest(name)
