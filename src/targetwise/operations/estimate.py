"""What a study costs before it runs: hours and disk, from measured rates and counted arithmetic.

A rate measured at one scale is carried to another by FLOPs per image. What was not measured is left out, and said so.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targetwise import cells
from targetwise.data import store
from targetwise.errors import UserError
from targetwise.operations import rates
from targetwise.operations.disk import Disk, cells_of_a_scale, disk, image_shapes, reference_images
from targetwise.recipe import kinds, labels, variants
from targetwise.recipe.config import variant
from targetwise.recipe.samplings import further_arguments
from targetwise.text import aligned, counted

#: Seconds until a job has imported PyTorch and diffusers: CPU time on the 2-core machine of the first record.
START_UP = 5.0


@dataclass(frozen=True)
class Scale:
    """What one scale costs.

    Seconds and FLOP are a cell's, a mean over the parameterizations, and None where nothing was measured; ``bounds``
    is for all.
    """

    name: str
    cells: int
    parameters: int
    training_flops_per_image: int
    training_flops: int
    sampling_flops: int
    training: float
    sampling: float | None
    measuring: float | None
    start_up: float
    bounds: float

    @property
    def cell(self) -> float:
        """Return the seconds of one cell, as far as they were measured."""
        return self.training + (self.sampling or 0.0) + (self.measuring or 0.0) + self.start_up


@dataclass(frozen=True)
class Estimate:
    """What a grid costs.

    Attributes:
        at_once: the cells that are worked on at a time on each device: one on a GPU, on a CPU as many as its threads
            allow.
        once: the seconds of reference and floor; None where they were not measured.
        wall: the seconds until all is done.
    """

    study: str
    kind: str
    device: str
    devices: int
    threads: int
    cores: int
    at_once: int
    scales: list[Scale]
    once: float | None
    wall: float
    disk: Disk
    grounds: list[str]

    @property
    def seconds(self) -> float:
        """Return the seconds of all work, one after the other."""
        return (self.once or 0.0) + sum(scale.cells * scale.cell + scale.bounds for scale in self.scales)


def estimate(config: Mapping[str, Any], path: Path, devices: int = 1) -> Estimate:
    """Return what the configured grid costs.

    Args:
        config: the whole configuration.
        path: the benchmark record to rest on.
        devices: how many GPUs, or CPUs of the record's kind, work at a time.

    Raises:
        UserError: if the size of the data set is not known yet, or the record cannot be read.
    """
    shapes = image_shapes(config)
    if shapes is None:
        images = store.ROOT / config["data"]["dataset"] / "dataset.npz"
        raise UserError(f"the number of images is known once `snakemake --cores 1 -- {images}` has run")
    record = rates.read_record(path)
    training = rates.training_rate(record, config["training"])
    sampling = rates.sampling_rate(record, config["training"])
    threads, cores = config["training"]["threads"], record["sections"]["train"]["cores"]
    metric = rates.metric_rate(record, config["metric"], threads)
    scales = [_scale(config, name, shapes["train"], training, sampling, metric) for name in config["grid"]["scales"]]
    floor = config["sampling"]["images"] if config["bounds"] else 0
    once = (reference_images(config, shapes) + floor) / metric.images_per_second if metric else None
    jobs = [seconds for scale in scales for seconds in [*[scale.cell] * scale.cells, scale.bounds]]
    at_once = max(1, cores // threads) if record["kind"] == "cpu" else 1
    not_measured = "not measured there, left out"
    return Estimate(
        study=config["study"],
        kind=record["kind"],
        device=record["name"],
        devices=devices,
        threads=threads,
        cores=cores,
        at_once=at_once,
        scales=scales,
        once=once,
        wall=(once or 0.0) + makespan(jobs, devices * at_once),
        disk=disk(config, shapes, devices * at_once),
        grounds=[
            f"record: {path}, {record['name']}, measured {record['measured_at'][:10]}",
            f"training: {training.origin}; in batches of {record['sections']['train']['batch']}, the study's are "
            f"{config['training']['global_batch']}",
            *_scaling(scales, record["sections"]["train"]),
            *_sharing(record["kind"], threads, cores),
            f"sampling: {sampling.origin if sampling else not_measured}",
            f"metric: {metric.origin if metric else not_measured}",
            f"start-up: {START_UP:g} s for each of {counted(_jobs(config), 'job')} of the cells; set-up, data, "
            "table, report, MLflow and DVC are left out"
            f"{', and so are the probes' if config['probes'] else ''}",
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
            *(hours(each, scale.cells) for each in (scale.training, scale.sampling, scale.measuring)),
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
    unit = "GPU-hours" if on_gpu else f"hours of this kind of CPU, {found.threads} of its {found.cores} threads each"
    places = "one cell on each" if found.at_once == 1 else f"{found.at_once} cells at a time on each"
    lines = [
        f"study {found.study}: {counted(sum(scale.cells for scale in found.scales), 'cell')}",
        *aligned(rows, str.rjust),
        f"reference and bounds: {hours(found.once and found.once + sum(scale.bounds for scale in found.scales))} h",
        f"total{', without what is ?' if missing else ''}: {hours(found.seconds)} {unit}; wall time "
        f"{hours(found.wall)} h on {found.devices} × {found.device}, {places}; "
        f"disk {found.disk.total / 1e9:.2f} GB",
        "",
        "Based on:",
        *(f"- {ground}" for ground in found.grounds),
        f"- work: {_flop(trained)} of training, {_flop(sampled)} of sampling",
    ]
    if not on_gpu:
        lines.append(
            "- this is not a GPU record, so these are not GPU-hours: `make bench-gpu` on a GPU makes one; until "
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
    order = config["grid"]["parameterizations"]
    training_flops, sampling_flops, measuring, bounds = 0, 0, 0.0, 0.0
    for each in order:
        own, network = variants.training(config, each, name), variants.network(config, each, name)
        found = cost(network, channels, size, labels.classes(config, each))
        training_flops += own["steps"] * own["global_batch"] * found.training
        for index, options in enumerate(variants.samplings(config, each).values()):
            evaluations = _evaluations(config, each, options) * labels.evaluations(options)
            draw_flops = options["images"] * evaluations * found.forward
            sample = draw_flops / sampling.flops_per_second if sampling else 0.0
            measure = options["images"] / metric.images_per_second + metric.seconds_per_distance if metric else 0.0
            sampling_flops += options["draws"] * draw_flops
            measuring += options["draws"] * measure
            if config["bounds"] and not index:  # the ceiling: one draw of an untrained network
                bounds += sample + measure
    first = cost(variants.network(config, order[0], name), channels, size, labels.classes(config, order[0]))
    return Scale(
        name=name,
        cells=cells_of_a_scale(config),
        parameters=first.parameters,
        training_flops_per_image=first.training,
        training_flops=training_flops // len(order),
        sampling_flops=sampling_flops // len(order),
        training=training_flops / len(order) / training.flops_per_second,
        sampling=sampling_flops / len(order) / sampling.flops_per_second if sampling else None,
        measuring=measuring / len(order) if metric else None,
        start_up=START_UP * _jobs(config) / len(order) / len(config["grid"]["seeds"]) / len(config["grid"]["scales"]),
        bounds=bounds,
    )


def _evaluations(config: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> int:
    """Return how often the network is asked about an image: once a step, unless the sampler asks more often."""
    asked, _ = further_arguments(kinds.load("samplers", options["sampler"]))
    if "denoise" not in asked:
        return int(options["steps"])
    from targetwise.sampling.denoiser import evaluations  # seconds, for PyTorch

    return evaluations(variant(config, name), options)


def _scaling(scales: list[Scale], measured: Mapping[str, Any]) -> list[str]:
    """Return how the measured network's rate was carried to the others, a line if there are any."""
    factors = {scale.name: scale.training_flops_per_image / measured["training_flops"] for scale in scales}
    others = [f"{name} × {factor:.3g}" for name, factor in factors.items() if factor != 1]
    return [f"other networks by FLOPs per image: {', '.join(others)}"] if others else []


def _sharing(kind: str, threads: int, cores: int) -> list[str]:
    """Return how a CPU's rate, measured with all its threads, was carried to cells of fewer, in a line."""
    if kind != "cpu" or threads >= cores:
        return []
    return [f"threads: those rates are of {cores}; a cell has {threads} and is taken to be {threads}/{cores} as fast"]


def _jobs(config: Mapping[str, Any]) -> int:
    """Return how many jobs import PyTorch: each cell's training, and sampling and measuring of each of its draws."""
    return sum(1 + 2 * len(cells.draws(config, cell.parameterization)) for cell in cells.grid(config))


def hours(seconds: float | None, cells: int = 1) -> str:
    """Return the hours of so many cells of so many seconds each, e.g. ``0.208`` or ``6,370``; unknown is a ``?``."""
    if seconds is None:
        return "?"
    found = cells * seconds / 3600
    return f"{found:,.0f}" if found >= 100 else f"{found:.3g}"


def _flop(count: float) -> str:
    unit, size = ("EFLOP", 1e18) if count >= 1e18 else ("PFLOP", 1e15) if count >= 1e15 else ("TFLOP", 1e12)
    return f"{count / size:.3g} {unit}"
