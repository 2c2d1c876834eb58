"""How a cell that was made again compares with its record: what is off, by how much, and what goes with it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy import stats

from targetwise.data.samples import load_samples
from targetwise.errors import UserError
from targetwise.files import sha256_of_array, sha256_of_file
from targetwise.records.manifest import labels

Manifest = Mapping[str, Any]

#: Of the recorded environment, what cannot change a number.
WITHOUT_EFFECT = frozenset({"host", "cores", "snakemake", "mlflow", "dvc"})

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a cell's manifest and the folder of its files."""

    manifest: Manifest
    folder: Path


@dataclass(frozen=True)
class Quantity:
    """One thing that is compared; ``off`` is empty, or says how far it is off and what goes with that."""

    name: str
    off: str = ""


@dataclass(frozen=True)
class Spread:
    """Where a value lies among the recorded seeds; ``within`` is None where that is unknown."""

    within: bool | None
    words: str


@dataclass(frozen=True)
class Comparison:
    """All that can be said.

    ``environment`` has a line for each group of stages that ran elsewhere than recorded; ``on_a_free_gpu`` is whether
    a GPU was used whose kernels need not repeat themselves.
    """

    quantities: list[Quantity]
    environment: list[str]
    on_a_free_gpu: bool
    spread: Spread

    @property
    def identical(self) -> bool:
        """Return whether every quantity is the recorded one, bit by bit."""
        return not any(quantity.off for quantity in self.quantities)

    def lines(self) -> list[str]:
        """Return the answer for people, a line each."""
        rows = [(each.name, f"off: {each.off}" if each.off else "identical") for each in self.quantities]
        rows += [("environment", words) for words in self.environment or ["no recorded difference"]]
        if self.on_a_free_gpu and not self.identical:
            rows += [("note", "training.deterministic is false, so a GPU does not give the same bits twice")]
        rows += [("spread", self.spread.words)]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {words}" for name, words in rows]

    def summary(self) -> str:
        """Return in one line what is not identical."""
        off = [each.name for each in self.quantities if each.off]
        where = {True: "within the spread", False: "outside the spread", None: "not comparable with the spread"}
        return (
            f"not identical to the record: {', '.join(off)}; "
            f"the metric is {where[self.spread.within]} of the recorded seeds"
        )


def compare(recorded: Side, made: Side, seeds: Sequence[Manifest]) -> Comparison:
    """Compare a cell with its record.

    Args:
        recorded: its files may be missing: their digests are still compared.
        made: the same cell, made again.
        seeds: the manifests of all recorded seeds that are comparable, the recorded one among them.
    """
    there, here = recorded.manifest, made.manifest
    differences = {stage: _environment_differences(there, here, stage) for stage in _stages(there)}

    def quantity(name: str, off: str, stage: str, made_from: Quantity | None = None) -> Quantity:
        return Quantity(name, f"{off}; {_cause(stage, differences[stage], made_from)}" if off else "")

    model = quantity("model", _model_off(recorded, made), "train")
    quantities = [model]
    for label, before, now in zip(labels(there["draws"]), there["draws"], here["draws"], strict=True):
        samples = quantity(f"samples of {label}", _samples_off(recorded, made, before, now), f"sample {label}", model)
        quantities.append(samples)
        for name, off in _metric_off(before, now):
            quantities.append(quantity(f"{name} of {label}", off, f"measure {label}", samples))
    return Comparison(quantities, _grouped(differences), _on_a_free_gpu(there, here), spread(there, here, seeds))


def measured(manifest: Manifest) -> list[Any]:
    """Return what must be the same in two cells whose values are seeds of one distribution."""
    configuration = manifest["configuration"]
    specification = {**configuration["cell.json"], "cell": None}
    return [{**configuration, "cell.json": specification}, manifest["code"]["sources"], manifest["data"]]


def spread(recorded: Manifest, made: Manifest, seeds: Sequence[Manifest]) -> Spread:
    """Say where the value that was made again lies among the recorded seeds of its parameterization and scale.

    It is within their spread if it lies where 95 % of further seeds are expected: mean ± t·s·√(1 + 1/n), with mean
    and standard deviation s of n seeds and Student's t of n − 1 degrees of freedom. Draws are averaged first.
    """
    value, own = _value(made), _value(recorded)
    values = [each for each in map(_value, seeds) if each is not None]
    if value is None or own is None:
        return Spread(None, "there is no value, because the cell diverged")
    if len(values) < 2:
        return Spread(None, "there is one recorded seed, so the scatter of seeds is unknown")
    count, mean, deviation = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * deviation * math.sqrt(1 + 1 / count)
    low, high = min(values), max(values)
    within = abs(value - mean) <= half
    words = (
        f"{value:.6g} lies {'within' if within else 'outside'} {mean - half:.6g} to {mean + half:.6g}, where "
        f"{100 * CONFIDENCE:g} % of further seeds are expected; the {count} recorded have {low:.6g} to {high:.6g}"
    )
    if deviation and value != own:
        words += f"; it is {abs(value - own) / deviation:.2g} of their standard deviation from its record"
    return Spread(within, words)


def _value(manifest: Manifest) -> float | None:
    # Of several samplers the first: their values are of different scales.
    values = [draw["value"] for draw in manifest["draws"] if draw["sampler"] == manifest["draws"][0]["sampler"]]
    return None if None in values else float(np.mean(values))


def _model_off(recorded: Side, made: Side) -> str:
    there, here = (side.manifest["training"] for side in (recorded, made))
    if there["model_sha256"] == here["model_sha256"]:
        return ""
    if there["status"] != here["status"]:
        return f"{_outcome(here)}, recorded is {_outcome(there)}"
    if there["status"] == "diverged":
        return "it diverged as recorded, with other weights"
    path = recorded.folder / "model.safetensors"
    if not path.exists() or sha256_of_file(path) != there["model_sha256"]:
        return "by how much is unknown, because the recorded model.safetensors is not here"
    return _weights_off(load_file(path), load_file(made.folder / "model.safetensors"))


def _weights_off(there: Mapping[str, np.ndarray], here: Mapping[str, np.ndarray]) -> str:
    if {name: array.shape for name, array in there.items()} != {name: array.shape for name, array in here.items()}:
        return "it is another network: names or shapes of its weights differ"
    differing, largest, relative = 0, 0.0, 0.0
    for name, array in there.items():
        difference = np.abs(array.astype(np.float64) - here[name].astype(np.float64))
        differing += int((difference > 0).sum())
        largest = max(largest, float(difference.max()))
        relative = max(relative, float(difference.max() / (np.abs(array).max() or 1.0)))
    total = sum(array.size for array in there.values())
    if not differing:
        return "the bytes of the file differ, the weights do not"
    return (
        f"{differing:,} of {total:,} weights differ, by at most {largest:.2g}, and by at most {relative:.2g} of the "
        "largest weight of their tensor"
    )


def _samples_off(recorded: Side, made: Side, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there["samples_sha256"] == here["samples_sha256"]:
        return ""
    if (there["status"], there["n"]) != (here["status"], here["n"]):
        return f"{here['n']:,} images, recorded are {there['n']:,}"
    path = Path("samples") / there["sampler"] / f"draw{there['draw']}.npz"
    before = _images(recorded.folder / path, there["samples_sha256"])
    if before is None:
        return f"by how much is unknown, because the recorded {path.name} is not here"
    difference = np.abs(before.astype(np.int16) - load_samples(made.folder / path))
    share = 100 * float((difference > 0).any(-1).mean())
    return (
        f"{share:.3g} % of the pixels differ, by {float(difference.mean()):.2g} of 255 levels on average over all "
        f"and {int(difference.max())} at most"
    )


def _images(path: Path, digest: str) -> np.ndarray | None:
    """Return recorded samples, if they are here and still those that are recorded."""
    try:
        images = load_samples(path)
    except UserError:
        return None
    return images if sha256_of_array(images) == digest else None


def _metric_off(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys([there["name"], *there["values"], *here["values"]]):
        before, now = there["values"].get(name), here["values"].get(name)
        if before == now:
            off = ""
        elif before is None or now is None:
            off = f"{_outcome(here)}, recorded is {_outcome(there)}"
        else:
            relative = f", {abs(now - before) / abs(before):.2g} of it" if before else ""
            off = f"{now:.8g}, recorded is {before:.8g}: {now - before:+.2g}{relative}"
        yield there["metric"] if name == there["name"] else name, off


def _outcome(record: Mapping[str, Any]) -> str:
    return f"{record['status']} ({record['reason']})" if record["reason"] else str(record["status"])


def _environment_differences(there: Manifest, here: Manifest, stage: str) -> list[str]:
    """Return e.g. ``torch 2.13.0 → 2.14.1`` for everything that may have changed a stage's numbers."""
    before, now = _environment(there, stage), _environment(here, stage)
    return [
        f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def _environment(manifest: Manifest, stage: str) -> dict[str, Any]:
    found = next(each for each in manifest["environments"] if stage in each["stages"])
    commit = found["code"]["commit"] or "unknown"
    facts = {
        **found["versions"],
        **found["machine"],
        "commit": f"{commit[:12]}{' with uncommitted changes' if found['code']['modified'] else ''}",
    }
    if stage == "train":
        facts |= {name: manifest["training"][name] for name in ("device", "processes")}
        facts |= manifest["training"].get("formats") or {}
    return {name: value for name, value in facts.items() if name not in WITHOUT_EFFECT}


def _stages(manifest: Manifest) -> list[str]:
    """Return the stages in their order."""
    return ["train", *(f"{what} {label}" for label in labels(manifest["draws"]) for what in ("sample", "measure"))]


def _cause(stage: str, differences: list[str], made_from: Quantity | None) -> str:
    if made_from and made_from.off:
        return f"follows from the {made_from.name}"
    if differences:
        return f"{stage} ran in another environment than recorded (below)"
    return f"no recorded difference in the environment of {stage} goes with it"


def _grouped(differences: Mapping[str, list[str]]) -> list[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for stage, found in differences.items():
        groups.setdefault(tuple(found), []).append(stage)
    return [f"{', '.join(stages)}: {', '.join(found)}" for found, stages in groups.items() if found]


def _on_a_free_gpu(*manifests: Manifest) -> bool:
    """Return whether a GPU was used without kernels that repeat themselves."""
    deterministic = manifests[0]["configuration"]["cell.json"]["training"]["deterministic"]
    return not deterministic and any(
        "gpu" in environment["machine"] for each in manifests for environment in each["environments"]
    )
