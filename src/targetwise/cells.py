"""The grid's cells: their names, their folders, and the specification that decides each one's result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from targetwise import variants
from targetwise.config import sampling_files, source_digests, source_files, variant
from targetwise.data.digests import declared
from targetwise.diffusion.randomness import golden_draw
from targetwise.errors import UserError, nearest
from targetwise.files import read_json, sha256_of_json, write_json_if_changed

#: One number per stage, raised by hand when its numerics change, so that what is older is made again, and nothing
#: else. tests/test_protocol.py holds short runs that must not move without them. DVC reads this line as it stands.
PROTOCOL = {"training": 2, "sampling": 2, "metric": 1, "reference": 1}

RESULTS = Path("results")


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid: a parameterization at a scale with a seed."""

    study: str
    parameterization: str
    scale: str
    seed: int

    @property
    def name(self) -> str:
        """Return e.g. ``epsilon-small-0``."""
        return f"{self.parameterization}-{self.scale}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Return e.g. ``results/cifar10/epsilon/small/seed0``."""
        return RESULTS / self.study / self.parameterization / self.scale / f"seed{self.seed}"


def grid(config: Mapping[str, Any]) -> list[Cell]:
    """Return all cells of the configured grid, in the order of its lists."""
    axes = config["grid"]
    return [
        Cell(config["study"], parameterization, scale, seed)
        for parameterization, scale, seed in product(axes["parameterizations"], axes["scales"], axes["seeds"])
    ]


def find(config: Mapping[str, Any], name: str) -> Cell:
    """Return the cell called ``name``.

    Raises:
        UserError: if the grid has no such cell.
    """
    cells = {cell.name: cell for cell in grid(config)}
    if name not in cells:
        raise UserError(f"study {config['study']} has no cell '{name}'; {nearest(name, cells)}")
    return cells[name]


@dataclass(frozen=True)
class Draw:
    """An independent set of samples of one model.

    Attributes:
        sampler: the folder of its samples and its row, e.g. ``ddim-50``.
        number: from 0.
    """

    sampler: str
    number: int

    @property
    def name(self) -> str:
        """Return where it lies below ``samples`` and ``fid``, e.g. ``ddim-50/draw0``."""
        return f"{self.sampler}/draw{self.number}"


def draws(config: Mapping[str, Any], parameterization: str) -> list[Draw]:
    """Return the draws of each cell of a parameterization, sampler by sampler."""
    samplings = variants.samplings(config, parameterization)
    return [Draw(name, number) for name, options in samplings.items() for number in range(options["draws"])]


def sampling_file(study: Path, parameterization: str, sampler: str) -> Path:
    """Return the path of what decides a parameterization's samples, beside what decides its training."""
    return study / parameterization / f"sampling-{sampler}.json"


def reference_name(config: Mapping[str, Any]) -> str:
    """Return the name of the reference statistics, e.g. ``inception-clean-fid-train`` or ``…-train-first2000``."""
    metric = config["metric"]
    reference = metric["reference"]
    first = f"-first{reference['first']}" if reference.get("first") else ""
    return f"{metric['extractor']}-{metric['implementation']}-{reference['split']}{first}"


def shared_jobs(config: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return folder and name of the jobs that are not one cell's: the reference, and the bounds."""
    study, axes = RESULTS / config["study"], config["grid"]
    variants = product(axes["parameterizations"], axes["scales"])
    return [
        (Path("data") / config["data"]["dataset"] / "reference", reference_name(config)),
        (study, "floor"),
        *((study / parameterization / scale, "ceiling") for parameterization, scale in variants),
    ]


def specifications(config: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Return every specification file of the study: what decides a result, and nothing else.

    A stage is out of date exactly when its own file changed, so there is one per stage: ``cell.json`` (training),
    ``variant.json`` (the check before it), ``sampling-<sampler>.json`` (without what decides no image: how many
    draws there are, and how many images are made at a time), ``metric.json`` (and with how many images the floor is
    measured) and ``study.json`` with the whole resolved configuration (table and report).
    """
    study = RESULTS / config["study"]
    files: dict[Path, dict[str, Any]] = {
        study / "study.json": dict(config),
        study / "metric.json": {
            "protocol": PROTOCOL["metric"],
            "dataset": config["data"]["dataset"],
            "floor_images": config["sampling"]["images"],
            **config["metric"],
            "reference": {"protocol": PROTOCOL["reference"], **config["metric"]["reference"]},
        },
    }
    dataset = config["datasets"][config["data"]["dataset"]]
    resolved = {name: variant(config, name) for name in config["grid"]["parameterizations"]}
    settings = {name: variants.settings(config, name) for name in resolved}
    for name, each in resolved.items():
        files[study / name / "variant.json"] = {
            "protocol": PROTOCOL["training"],
            **each,
            "precision": settings[name]["training"]["precision"],
        }
        for sampler, options in variants.samplings(config, name).items():
            decisive = variants.decisive("sampling", options)
            files[sampling_file(study, name, sampler)] = {"protocol": PROTOCOL["sampling"], **decisive}
    for cell in grid(config):
        own = settings[cell.parameterization]
        scale = variants.merge(config["scales"][cell.scale], own["network"])
        training = variants.decisive("training", own["training"])
        training["global_batch"] = scale.pop("global_batch", training["global_batch"])
        files[cell.folder / "cell.json"] = {
            "protocol": PROTOCOL["training"],
            "cell": {
                "study": cell.study,
                "parameterization": cell.parameterization,
                "scale": cell.scale,
                "seed": cell.seed,
            },
            "variant": resolved[cell.parameterization],
            "network": scale,
            "data": {**own["data"], "train_sha256": declared(dataset, "train")},
            "training": training,
        }
    return files


def training_key(specification: Mapping[str, Any], sources: Mapping[str, str], images: str | None) -> str:
    """Return the digest of all that decides a training; states and results with another key are another cell's.

    Args:
        specification: the content of ``cell.json``.
        sources: the SHA-256 of each of :func:`targetwise.config.source_files`, by its path.
        images: the SHA-256 of the training images; None where they are not known, which is the key of no training.
    """
    return sha256_of_json([specification, sources, images, golden_draw()])


def sampling_key(
    specification: Mapping[str, Any],
    sources: Mapping[str, str],
    training: Mapping[str, Any],
    options: Mapping[str, Any],
    draw: int,
) -> str:
    """Return the digest of all that decides a draw of samples.

    Args:
        specification: the content of ``cell.json``.
        sources: the SHA-256 of each of :func:`targetwise.config.sampling_files`, by its path.
        training: the content of ``training.json``.
        options: the content of ``sampling-<sampler>.json``.
        draw: which of the independent sample sets.
    """
    made_from = [specification, sources, training["model_sha256"], training["status"], options, draw]
    return sha256_of_json([*made_from, golden_draw()])


class TrainingKeys:
    """The keys that trainings of a study have now; each parameterization's file is read once."""

    def __init__(self, images: str | None) -> None:
        """Prepare for trainings on the images with the SHA-256 ``images``; None where they are not known."""
        self._images = images
        self._digests: dict[str, str] = {}

    def of(self, specification: Mapping[str, Any]) -> str:
        """Return the key for the content of a ``cell.json``."""
        files = source_files(specification["variant"], specification["network"])
        return training_key(specification, self._sources(files), self._images)

    def of_samples(
        self, specification: Mapping[str, Any], training: Mapping[str, Any], options: Mapping[str, Any], draw: int
    ) -> str:
        """Return the key of a draw that is sampled from ``training``; see :func:`sampling_key`."""
        sources = self._sources(sampling_files(specification["variant"], specification["network"], options))
        return sampling_key(specification, sources, training, options, draw)

    def _sources(self, files: Sequence[Path]) -> dict[str, str]:
        self._digests |= source_digests(path for path in files if str(path) not in self._digests)
        return {str(path): self._digests[str(path)] for path in files}


def write_specifications(config: Mapping[str, Any], *, replace: bool = True) -> None:
    """Write each specification whose content changed; the others keep their dates.

    Args:
        config: the whole configuration.
        replace: whether those that exist may change; False while a run that reads them is under way.
    """
    for path, content in specifications(config).items():
        if replace or not path.exists():
            write_json_if_changed(path, content)


def require_specifications(config: Mapping[str, Any]) -> None:
    """Make sure that a job reads the configuration that its run was started with.

    Raises:
        UserError: if a specification on disk differs from what the configuration now gives.
    """
    for path, content in specifications(config).items():
        if read_json(path) != content:
            raise UserError(
                f"the configuration was edited while a run is under way: {path} no longer agrees with it; "
                "undo the edit, or stop the run and start it again"
            )
