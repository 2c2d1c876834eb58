"""Hold the standard error that a row gives its Fréchet distance against the spread over fresh samples.

    OMP_NUM_THREADS=1 python benchmarks/fid_error.py data/cifar10/reference/inception-clean-fid-train.npz
    python benchmarks/fid_error.py data/digits/reference/digits-fast-train.npz --sizes 128,512
    python benchmarks/fid_error.py REFERENCE.npz --replicates 3 --predictions 2 --output /tmp   whether it works

The features of a reference of real images are the population. What is drawn from it, with replacement, is compared
with all of them (the distributions agree), and draws from some classes only with all of them (as a model's samples
that lack the others). Disjoint sets are cut from four fifths of the images, again and again, and compared with the
last fifth; their spread is that within a cut.
Each size is saved as it is done, and not measured again. Then `python benchmarks/error_table.py` writes the table of
docs/errors.md.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from targetwise import errors
from targetwise.errors import UserError
from targetwise.files import read_json, write_json
from targetwise.metric.classes import labels_of
from targetwise.metric.distance import moments
from targetwise.metric.influence import root_of, split
from targetwise.metric.reference import Reference, describe, load_reference
from targetwise.provenance import code, machine, versions

RECORDS = Path("benchmarks/results/errors")
FORMAT = 1

#: The share of classes that the far population has: it lacks the others.
PRESENT = 0.7

Drawn = Callable[[int], np.ndarray]


def main() -> None:
    """Measure the sizes asked for, and save the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="the .npz of real images' features")
    parser.add_argument("--sizes", default="2500,5000,10000,25000", metavar="N,…")
    parser.add_argument("--replicates", type=int, default=100, metavar="N", help="sets whose spread is observed")
    parser.add_argument("--predictions", type=int, default=5, metavar="N", help="of them, whose error is predicted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the distances")
    parser.add_argument("--output", type=Path, default=RECORDS, metavar="FOLDER", help="of the record")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if min(sizes) < 4 or not 2 <= arguments.predictions <= arguments.replicates:
        raise UserError("--sizes must be at least 4, --predictions at least 2, and --replicates no fewer than those")
    reference = load_reference(arguments.reference)
    facts = reference.facts
    plan = {"replicates": arguments.replicates, "predictions": arguments.predictions}
    path = arguments.output / f"{facts['dataset']}-{arguments.reference.stem}.json"
    about = {"reference": describe(facts), "reference_sha256": facts["images_sha256"], "n": facts["n"]}
    record = read_json(path) if path.exists() else {}
    if [record.get(name) for name in ("format", "reference_sha256")] != [FORMAT, facts["images_sha256"]]:
        record = {"format": FORMAT, **about, "dimensions": reference.features.shape[1], "entries": []}
    for trial in trials(reference, sizes, torch.device(arguments.device)):
        done = [entry for entry in record["entries"] if (entry["population"], entry["n"]) == (trial.name, trial.size)]
        if any(entry["plan"] == plan for entry in done):
            continue
        began = time.monotonic()
        found = trial.measured(**plan)
        entry = {
            "population": trial.name,
            "n": trial.size,
            "plan": plan,
            **found,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {key: value for key, value in machine().items() if key != "host"},
            "versions": versions(),
            "code": code(),
            "seconds": time.monotonic() - began,
        }
        record["entries"] = [*(each for each in record["entries"] if each not in done), entry]
        write_json(path, record)
        print(f"{trial.name}, n = {trial.size:,}: {entry['seconds']:.0f} s", file=sys.stderr, flush=True)
    print(path)


class Target:
    """What sets are compared with: mean and covariance, and what each distance needs of them."""

    def __init__(self, features: np.ndarray, device: torch.device) -> None:
        """Take the moments of features (N, D)."""
        self.mean, covariance = moments(features)
        self.root = root_of(covariance)
        self._on_device = tuple(torch.from_numpy(each).to(device) for each in (self.mean, self.root))
        self._trace = float(np.trace(covariance))
        self._device = device

    def distance(self, features: np.ndarray) -> float:
        """Return the Fréchet distance of features (n, D), as the library has it, with the root at hand."""
        mean, root = self._on_device
        own: Tensor = torch.from_numpy(features).to(self._device, torch.float64)
        covariance = torch.cov(own.T)
        values = torch.linalg.eigvalsh(root @ covariance @ root)
        off = own.mean(0) - mean
        return float(off @ off + covariance.trace() + self._trace - 2 * values.clamp(min=0).sqrt().sum())


@dataclass(frozen=True)
class Trial:
    """Sets of one size from one population, and what they are compared with.

    Attributes:
        name: of the population.
        size: of a set.
        target: that they are compared with.
        sets: ``sets(number)`` is the features of set ``number``, (size, D).
        of_a_cut: how many sets in a row are disjoint; None where each is a fresh draw.
    """

    name: str
    size: int
    target: Target
    sets: Drawn
    of_a_cut: int | None = None

    def measured(self, replicates: int, predictions: int) -> dict[str, Any]:
        """Return the spread over sets, and the errors that some of them predict."""
        count = replicates if self.of_a_cut is None else -(-replicates // self.of_a_cut) * self.of_a_cut
        values = np.array([self.target.distance(self.sets(number)) for number in range(count)])
        made = [split(self.sets(n), self.target.mean, self.target.root) for n in range(min(predictions, count))]
        predicted = np.array([each.error() for each in made])
        paired = [each.condensed().error() for each in made]
        observed, observed_error = _spread(values) if self.of_a_cut is None else _within(values, self.of_a_cut)
        return {
            "sets": count,
            "value": float(values.mean()),
            "observed": observed,
            "observed_error": observed_error,
            "predicted": float(np.sqrt(np.mean(predicted**2))),
            "predicted_spread": float(predicted.std(ddof=1)),
            "condensed": float(np.sqrt(np.mean(np.square(paired)))),
            "jackknife": float(np.sqrt(np.mean([each.parts[0].spread for each in made]))),
        }


def trials(reference: Reference, sizes: list[int], device: torch.device) -> Iterator[Trial]:
    """Yield the trials, population by population."""
    features = reference.features
    everything = Target(features, device)
    labels = labels_of(reference)
    kinds = np.unique(labels)
    present = kinds[: round(PRESENT * len(kinds))]
    some = features[np.isin(labels, present)]
    lacking = f"{len(present)} of its {len(kinds)} classes"
    order = np.random.default_rng(0).permutation(len(features))
    others, pool = np.split(order, [len(features) // 5])
    apart = Target(features[others], device)
    for name, own in (("disjoint", pool), (f"disjoint, {lacking}", pool[np.isin(labels[pool], present)])):
        for size in sizes:
            if (of_a_cut := len(own) // size) >= 2:
                yield Trial(name, size, apart, _disjoint(features, own, size), of_a_cut)
    for size in sizes:
        yield Trial("the reference itself", size, everything, _fresh(features, size))
    for size in sizes:
        yield Trial(lacking, size, everything, _fresh(some, size))


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of independent values, and how well they know it."""
    observed = float(values.std(ddof=1))
    # By the fourth moment, which is the normal distribution's at least.
    excess = max(3.0, float(np.mean((values - values.mean()) ** 4) / values.var() ** 2)) - 1
    return observed, observed * float(np.sqrt(excess / len(values))) / 2


def _within(values: np.ndarray, of_a_cut: int) -> tuple[float, float]:
    """Return the same of sets that are disjoint within a cut: each cut gives a variance of its own."""
    variances = values.reshape(-1, of_a_cut).var(axis=1, ddof=1)
    observed = float(np.sqrt(variances.mean()))
    return observed, float(variances.std(ddof=1)) / np.sqrt(len(variances)) / (2 * observed)


def _fresh(pool: np.ndarray, size: int) -> Drawn:
    return lambda number: pool[np.random.default_rng([size, number]).integers(len(pool), size=size)]


def _disjoint(features: np.ndarray, pool: np.ndarray, size: int) -> Drawn:
    of_a_cut = len(pool) // size

    def sets(number: int) -> np.ndarray:
        cut, place = divmod(number, of_a_cut)
        order = np.random.default_rng([size, cut]).permutation(pool)
        return features[order[place * size : (place + 1) * size]]

    return sets


if __name__ == "__main__":
    errors.run(main)
