"""The grid's cells and their draws: their names, and the folders that they have."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from targetwise.errors import UserError, nearest
from targetwise.recipe import variants

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
        return Path(RESULTS, self.study, self.parameterization, self.scale, f"seed{self.seed}")


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
        """Return where it is below ``samples`` and ``fid``, e.g. ``ddim-50/draw0``."""
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
        (study, "exact"),
        *((study / parameterization / scale, "ceiling") for parameterization, scale in variants),
    ]
