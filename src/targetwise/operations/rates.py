"""How fast this project was measured to be: what `targetwise estimate` reads from the benchmark records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from targetwise.errors import UserError
from targetwise.files import read_json
from targetwise.training.measurement import AUTO

RECORDS = Path("benchmarks/results")

#: Of a record; raised when what is read here moves.
FORMAT = 1

#: Without these a rate says nothing; ``cores`` are the threads that a CPU's rate was measured with.
CONDITIONS = ("measured_at", "machine", "versions", "cores")

#: What a training's speed depends on, and what a sampling's.
TRAINING_SWITCHES = ("precision", "channels_last", "fused_optimizer", "compile", "tf32", "deterministic")
SAMPLING_SWITCHES = ("precision", "channels_last", "compile")


@dataclass(frozen=True)
class Rate:
    """A measured speed in FLOP/s, and in words how it came about."""

    flops_per_second: float
    origin: str


@dataclass(frozen=True)
class MetricRate:
    """The metric's measured speed, and in words how it came about."""

    images_per_second: float
    seconds_per_distance: float
    origin: str


def newest_record(folder: Path = RECORDS) -> Path:
    """Return the newest record of a GPU, or of a CPU where there is none of a GPU.

    Raises:
        UserError: if no record has a training rate, or one cannot be read.
    """
    records = {path: read_record(path) for path in sorted(folder.glob("*.json"))}
    usable = {path: record for path, record in records.items() if "train" in record["sections"]}
    if not usable:
        raise UserError(f"no benchmark record in {folder}; `make bench` measures this CPU, `make bench-gpu` a GPU")
    return max(usable, key=lambda path: (usable[path]["kind"] == "cuda", usable[path]["measured_at"]))


def read_record(path: Path) -> dict[str, Any]:
    """Return a benchmark record.

    Raises:
        UserError: if it is missing, damaged or of another format, or does not say what was measured with what.
    """
    record: dict[str, Any] = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{path} is not a benchmark record of format {FORMAT}; delete it and run `make bench`")
    for name, section in record["sections"].items():
        missing = [key for key in CONDITIONS if not section.get(key)]
        if missing:
            raise UserError(
                f"{path}: section {name} does not say its {', '.join(missing)}; measure it again with "
                f"`python benchmarks/run.py --only {name}`"
            )
    return record


def switches(training: Mapping[str, Any], kind: str, names: Sequence[str] = TRAINING_SWITCHES) -> dict[str, Any]:
    """Return the switches of a ``training`` section for a kind of device, ``cpu`` or ``cuda``."""
    values = {name: training[name] for name in names}
    return {name: value[kind] if isinstance(value, Mapping) else value for name, value in values.items()}


def share(record: Mapping[str, Any], threads: int) -> float:
    """Return what part of the measured speed a cell of ``threads`` threads is taken to have; of a GPU, all."""
    return min(1.0, threads / record["sections"]["train"]["cores"]) if record["kind"] == "cpu" else 1.0


def training_rate(record: Mapping[str, Any], training: Mapping[str, Any]) -> Rate:
    """Return how fast the project trains, with the switches of the ``training`` section if that was measured."""
    section = record["sections"]["train"]
    wanted = {**switches(training, record["kind"]), "batch": section["batch"]}
    return _rate(record, "train", section["training_flops"], wanted, training["threads"])


def sampling_rate(record: Mapping[str, Any], training: Mapping[str, Any]) -> Rate | None:
    """Return how fast the project samples; None where it was not measured."""
    section = record["sections"].get("sample")
    if section is None:
        return None
    wanted = switches(training, record["kind"], SAMPLING_SWITCHES)
    return _rate(record, "sample", section["steps"] * section["forward_flops"], wanted, training["threads"])


def metric_rate(record: Mapping[str, Any], metric: Mapping[str, Any], threads: int) -> MetricRate | None:
    """Return how fast the ``metric`` section is measured on ``threads``; None where its extractor was not tried."""
    section = record["sections"].get("metric", {})
    if metric["extractor"] != "inception" or "comparisons" not in section:
        return None
    features, distance = (
        median(_rates([section], {"implementation": metric["implementation"]}, what))
        for what in ("features", "distance")
    )
    kernel = section["kernel_distance_seconds"]
    speed = f"{features:.1f} images/s and {1 / distance + kernel:.1f} s a draw for FID and KID"
    words = f"{speed}, implementation {metric['implementation']}"
    part = share(record, threads)
    return MetricRate(part * features, (1 / distance + kernel) / part, words)


def describe(settings: Mapping[str, Any]) -> str:
    """Return switches in words, e.g. ``bf16, compile``; what is left to be chosen is e.g. ``precision auto``."""
    words = ["precision auto" if settings["precision"] == AUTO else settings["precision"]]
    words += ["compile auto"] if settings.get("compile") == AUTO else []
    return ", ".join([*words, *(name for name, value in settings.items() if value is True)])


def _rate(
    record: Mapping[str, Any], name: str, flops_per_image: float, wanted: Mapping[str, Any], threads: int
) -> Rate:
    section = record["sections"][name]
    alone = {"comparisons": record["sections"].get("switches", {}).get(name, [])}
    choices = _choices([section, alone], wanted)
    measured = {each: _rates([section, alone], dict(each)) for each in choices}
    if measured:
        fastest = max(measured, key=lambda each: median(measured[each]))
        settings, rates = dict(fastest), measured[fastest]
        remark = (
            "; the fastest of what was measured, as a study with auto chooses it" if AUTO in wanted.values() else ""
        )
    else:
        first = section["comparisons"][0]["ours"]
        settings = {key: first["settings"][key] for key in wanted}
        rates = first["rates"]
        remark = f"; the study's own switches, {describe(wanted)}, were not measured"
    images = median(rates)
    speed = images * flops_per_image
    words = f"{images:,.2f} images/s at scale {section['scale']} with {describe(settings)}"
    return Rate(share(record, threads) * speed, f"{words}: {speed / 1e12:.3g} TFLOP/s{remark}")


def _choices(
    sections: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]
) -> dict[tuple[tuple[str, Any], ...], None]:
    """Return the measured settings that the wanted ones can stand for: any value where they say ``auto``."""
    stated = {name: value for name, value in wanted.items() if value != AUTO}
    return {
        tuple((name, side["settings"][name]) for name in wanted): None
        for section in sections
        for comparison in section["comparisons"]
        for side in (comparison["ours"], comparison["theirs"])
        if stated.items() <= side.get("settings", {}).items() and wanted.keys() <= side["settings"].keys()
    }


def _rates(sections: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any], what: str | None = None) -> list[float]:
    """Return all rates that were measured with the wanted settings, of comparisons of ``what``, if it is given."""
    return [
        rate
        for section in sections
        for comparison in section["comparisons"]
        if what in (None, comparison["what"])
        for side in (comparison["ours"], comparison["theirs"])
        if wanted.items() <= side.get("settings", {}).items()  # one that was skipped has none
        for rate in side["rates"]
    ]
