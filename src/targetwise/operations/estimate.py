"""What a study costs before it runs: hours and disk, from measured rates and counted arithmetic.

A rate measured at one scale is carried to another by FLOPs per image. What was not measured is left out, and said so.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targetwise.data import store
from targetwise.errors import UserError
from targetwise.files import read_json
from targetwise.operations import rates
from targetwise.operations.text import aligned

#: Shapes (N, H, W, C) of the data sets that are known before they are prepared.
SHAPES = {
    "cifar10": {"train": [50000, 32, 32, 3], "test": [10000, 32, 32, 3]},
    "digits": {"train": [1285, 8, 8, 1], "test": [512, 8, 8, 1]},
}

FEATURES = {"inception": 2048, "digits": 32}
FP32_BYTES, FP64_BYTES, LABEL_BYTES = 4, 8, 8

#: A saved state holds model, EMA and two moments, and the last one stays until the next is whole.
WEIGHTS_IN_STATE, STATES = 4, 2


@dataclass(frozen=True)
class Disk:
    """Bytes: of all cells by scale, of the states of cells in training, and of data set and reference."""

    cells: dict[str, int]
    states: int
    shared: int

    @property
    def total(self) -> int:
        """Return the most that is there at a time."""
        return sum(self.cells.values()) + self.states + self.shared


@dataclass(frozen=True)
class Scale:
    """What one scale costs. Seconds and FLOP are a cell's, None where nothing was measured; ``bounds`` is for all."""

    name: str
    cells: int
    parameters: int
    training_flops_per_image: int
    training_flops: int
    sampling_flops: int
    training: float
    sampling: float | None
    measuring: float | None
    bounds: float

    @property
    def cell(self) -> float:
        """Return the seconds of one cell, as far as they were measured."""
        return self.training + (self.sampling or 0.0) + (self.measuring or 0.0)


@dataclass(frozen=True)
class Estimate:
    """What a grid costs: ``once`` is the seconds of reference and floor, ``wall`` of it all, N at a time."""

    study: str
    kind: str
    device: str
    devices: int
    scales: list[Scale]
    once: float | None
    wall: float
    disk: Disk
    grounds: list[str]

    @property
    def seconds(self) -> float:
        """Return the seconds of all work, one after the other."""
        return (self.once or 0.0) + sum(scale.cells * scale.cell + scale.bounds for scale in self.scales)


def image_shapes(config: Mapping[str, Any]) -> Mapping[str, list[int]] | None:
    """Return the shapes (N, H, W, C) of the study's ``train`` and ``test``; None where only preparing them tells."""
    name = config["data"]["dataset"]
    manifest = store.ROOT / name / "manifest.json"
    if manifest.exists():
        return {split: facts["shape"] for split, facts in read_json(manifest)["splits"].items()}
    return SHAPES.get(config["datasets"][name]["kind"])


def disk(config: Mapping[str, Any], shapes: Mapping[str, list[int]], training_at_once: int = 1) -> Disk:
    """Return the bytes that the grid needs.

    Args:
        config: the whole configuration.
        shapes: (N, H, W, C) of each split.
        training_at_once: how many cells are in training together.
    """
    from targetwise.diffusion.cost import cost

    _, height, width, channels = shapes["train"]
    sampling = config["sampling"]
    count = _cells_of_a_scale(config)
    weights = {
        name: FP32_BYTES * cost(config["scales"][name], channels, height).parameters
        for name in config["grid"]["scales"]
    }
    samples = sampling["draws"] * sampling["images"] * height * width * channels
    in_training = sorted([each for each in weights.values() for _ in range(count)], reverse=True)
    features = FEATURES[config["metric"]["extractor"]]
    reference = _reference_images(config, shapes) * features * FP32_BYTES + features**2 * FP64_BYTES
    images = sum(n * (h * w * c + LABEL_BYTES) for n, h, w, c in shapes.values())
    return Disk(
        cells={name: count * (each + samples) for name, each in weights.items()},
        states=STATES * WEIGHTS_IN_STATE * sum(in_training[:training_at_once]),
        shared=images + reference,
    )


def estimate(config: Mapping[str, Any], path: Path, devices: int = 1) -> Estimate:
    """Return what the configured grid costs.

    Args:
        config: the whole configuration.
        path: the benchmark record to rest on.
        devices: how many cells are worked on at a time, one on each.

    Raises:
        UserError: if the size of the data set is not known yet, or the record cannot be read.
    """
    shapes = image_shapes(config)
    if shapes is None:
        images = store.ROOT / config["data"]["dataset"] / "dataset.npz"
        raise UserError(f"how many images there are is known once `snakemake --cores 1 -- {images}` has run")
    record = rates.read_record(path)
    training = rates.training_rate(record, config["training"])
    sampling = rates.sampling_rate(record, config["training"])
    metric = rates.metric_rate(record, config["metric"])
    scales = [_scale(config, name, shapes["train"], training, sampling, metric) for name in config["grid"]["scales"]]
    floor = config["sampling"]["images"] if config["bounds"] else 0
    once = (_reference_images(config, shapes) + floor) / metric.images_per_second if metric else None
    jobs = [seconds for scale in scales for seconds in [*[scale.cell] * scale.cells, scale.bounds]]
    not_measured = "not measured there, left out"
    return Estimate(
        study=config["study"],
        kind=record["kind"],
        device=record["name"],
        devices=devices,
        scales=scales,
        once=once,
        wall=(once or 0.0) + makespan(jobs, devices),
        disk=disk(config, shapes, devices),
        grounds=[
            f"record: {path}, {record['name']}, measured {record['measured_at'][:10]}",
            f"training: {training.origin}; in batches of {record['sections']['train']['batch']}, the study's are "
            f"{config['training']['global_batch']}",
            *_scaling(scales, record["sections"]["train"]),
            f"sampling: {sampling.origin if sampling else not_measured}",
            f"metric: {metric.origin if metric else not_measured}",
        ],
    )


def makespan(jobs: Iterable[float], devices: int) -> float:
    """Return the seconds that jobs take on some devices, the longest first, each to the device that is free first."""
    busy = [0.0] * devices
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(busy, busy[0] + job)
    return max(busy)


def render(found: Estimate) -> str:
    """Return the estimate for people: a line per scale, the sums, and what they rest on."""
    rows = [["scale", "cells", "parameters", "GFLOP/image", "train h", "sample h", "measure h", "disk GB"]]
    rows += [
        [
            scale.name,
            f"{scale.cells}",
            f"{scale.parameters / 1e6:.3f} M",
            f"{scale.training_flops_per_image / 1e9:.2f}",
            *(_hours(each, scale.cells) for each in (scale.training, scale.sampling, scale.measuring)),
            f"{found.disk.cells[scale.name] / 1e9:.2f}",
        ]
        for scale in found.scales
    ]
    trained, sampled = (
        sum(scale.cells * getattr(scale, name) for scale in found.scales)
        for name in ("training_flops", "sampling_flops")
    )
    missing = any(None in (scale.sampling, scale.measuring) for scale in found.scales)
    on_gpu = found.kind == "cuda"
    unit = "GPU-hours" if on_gpu else "hours of this kind of CPU"
    lines = [
        f"study {found.study}: {sum(scale.cells for scale in found.scales)} cells",
        *aligned(rows, str.rjust),
        f"reference and bounds: {_hours(found.once and found.once + sum(scale.bounds for scale in found.scales))} h",
        f"total{', without what is ?' if missing else ''}: {_hours(found.seconds)} {unit}; wall time "
        f"{_hours(found.wall)} h on {found.devices} × {found.device}, a cell on each; "
        f"disk {found.disk.total / 1e9:.2f} GB",
        "",
        "It rests on:",
        *(f"- {ground}" for ground in found.grounds),
        f"- work: {_flop(trained)} of training, {_flop(sampled)} of sampling",
    ]
    if not on_gpu:
        lines.append(
            "- this is no record of a GPU, so these are no GPU-hours: `make bench-gpu` on a GPU makes one; until "
            "then, divide the work by the FLOP/s that you expect of it"
        )
    return "\n".join(lines)


def _scale(
    config: Mapping[str, Any],
    name: str,
    shape: list[int],
    training: rates.Rate,
    sampling: rates.Rate | None,
    metric: rates.MetricRate | None,
) -> Scale:
    from targetwise.diffusion.cost import cost

    _, size, _, channels = shape
    definition, options = config["scales"][name], config["sampling"]
    found = cost(definition, channels, size)
    batch = definition.get("global_batch", config["training"]["global_batch"])
    training_flops = config["training"]["steps"] * batch * found.training
    draw_flops = options["images"] * options["steps"] * found.forward
    train = training_flops / training.flops_per_second
    sample = draw_flops / sampling.flops_per_second if sampling else None
    measure = options["images"] / metric.images_per_second + metric.seconds_per_distance if metric else None
    return Scale(
        name=name,
        cells=_cells_of_a_scale(config),
        parameters=found.parameters,
        training_flops_per_image=found.training,
        training_flops=training_flops,
        sampling_flops=options["draws"] * draw_flops,
        training=train,
        sampling=None if sample is None else options["draws"] * sample,
        measuring=None if measure is None else options["draws"] * measure,
        # The ceiling: one draw of an untrained network for every parameterization.
        bounds=len(config["grid"]["parameterizations"]) * ((sample or 0) + (measure or 0))
        if config["bounds"]
        else 0.0,
    )


def _scaling(scales: list[Scale], measured: Mapping[str, Any]) -> list[str]:
    """Return how the measured network's rate was carried to the others, a line if there are any."""
    factors = {scale.name: scale.training_flops_per_image / measured["training_flops"] for scale in scales}
    others = [f"{name} × {factor:.3g}" for name, factor in factors.items() if factor != 1]
    return [f"other networks by FLOPs per image: {', '.join(others)}"] if others else []


def _cells_of_a_scale(config: Mapping[str, Any]) -> int:
    return len(config["grid"]["parameterizations"]) * len(config["grid"]["seeds"])


def _reference_images(config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> int:
    reference = config["metric"]["reference"]
    return int(reference.get("first") or shapes[reference["split"]][0])


def _hours(seconds: float | None, cells: int = 1) -> str:
    if seconds is None:
        return "?"
    hours = cells * seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _flop(count: float) -> str:
    unit, size = ("EFLOP", 1e18) if count >= 1e18 else ("PFLOP", 1e15) if count >= 1e15 else ("TFLOP", 1e12)
    return f"{count / size:.3g} {unit}"
