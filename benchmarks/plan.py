"""What is measured on a CPU and on a GPU: sizes, switches, and the cell that all of it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from targetwise.compute.device import usable_cores
from targetwise.data import store
from targetwise.data.store import Images
from targetwise.operations.rates import switches
from targetwise.recipe.schema import read_yaml
from targetwise.training.measurement import AUTO, measure

Settings = dict[str, Any]

#: Switches that are measured by themselves too, and those that only a GPU has.
SWITCHES = ("bf16", "compile", "channels_last", "fused_optimizer", "deterministic")
SWITCHES_OF_GPU = ("fp16", "tf32")

#: Those that matter for sampling too.
SWITCHES_OF_SAMPLING = ("bf16", "fp16", "compile", "channels_last")


def with_and_without(name: str, configured: Settings) -> tuple[Settings, Settings]:
    """Return the switches ``configured`` with one of :data:`SWITCHES` or :data:`SWITCHES_OF_GPU`, and without it."""
    plain = {**configured, "precision": "fp32"}
    if name in ("bf16", "fp16"):
        return {**configured, "precision": name}, plain
    base = plain if name == "tf32" else configured
    return {**base, name: True}, {**base, name: False}


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is timed.

    Attributes:
        device: to measure.
        network: a scale of the configuration.
        scale: its name.
        configured: the switches as ``config.yaml`` sets them for this kind of device; see :func:`with_choice`.
        choice: what ``auto`` rests on, where they leave something to be chosen.
        others: the number format in which the other training loops come.
        switched: switches to measure by themselves.
        pairs: of runs.
        images: in the data set.
        batch: of training.
        steps: of a training run.
        sampling_steps: of the sampler.
        sampling_images: of a sampling run, in one batch.
        metric_images: in each of the two folders that the metric compares.
        distance_rows: feature vectors of each of the two sets whose distance is timed.
        matrix: rows of the matrix product that measures the peak.
        copied: numbers in the copy that measures the memory.
    """

    device: torch.device
    network: Mapping[str, Any]
    scale: str
    configured: Settings
    choice: Settings | None
    others: str
    switched: tuple[str, ...]
    pairs: int
    images: int
    batch: int
    steps: int
    sampling_steps: int
    sampling_images: int
    metric_images: int
    distance_rows: int
    matrix: int
    copied: int

    @property
    def formats(self) -> tuple[str, ...]:
        """Number formats that the other training loops run in: as they come, and as ours runs."""
        return tuple(dict.fromkeys((self.others, self.configured["precision"])))


def plan_for(device: torch.device) -> Plan:
    """Return what is measured on a device: minutes of it."""
    config = read_yaml(Path("config.yaml"))
    kind, scale = device.type, "small"
    common = {
        "device": device,
        "network": config["scales"][scale],
        "scale": scale,
        "configured": switches(config["training"], kind),
        "choice": None,
        "pairs": 5,
    }
    if kind == "cpu":
        return Plan(
            **common,
            others="fp32",
            switched=SWITCHES,
            images=2048,
            batch=8,
            steps=6,
            sampling_steps=10,
            sampling_images=8,
            metric_images=16,
            distance_rows=4096,
            matrix=2048,
            copied=2**25,
        )
    return Plan(
        **common,
        others="fp16",
        switched=SWITCHES + SWITCHES_OF_GPU,
        images=50000,
        batch=128,
        steps=50,
        sampling_steps=50,
        sampling_images=500,
        metric_images=2048,
        distance_rows=4096,
        matrix=8192,
        copied=2**28,
    )


def with_choice(plan: Plan, threads: int) -> Plan:
    """Return a plan in which nothing is ``auto``: what a study of the plan's network would choose on this CPU.

    Args:
        plan: sizes.
        threads: that the project's loops run with here.
    """
    if AUTO not in plan.configured.values():
        return plan
    cell, images = specification(plan, plan.configured), load_images(1)[1]
    training = {**cell["training"], "threads": threads}
    training["global_batch"] = read_yaml(Path("config.yaml"))["training"]["global_batch"]
    found = measure({**cell, "training": training}, (images.size, images.channels))
    configured = {**plan.configured, **found.pop("values")}
    # Where bf16 is no choice it takes many times as long, and nobody would run it.
    switched = tuple(name for name in plan.switched if name != "bf16" or configured["precision"] == name)
    return replace(plan, configured=configured, choice=found, switched=switched)


def specification(plan: Plan, settings: Settings, accumulated: int = 1) -> Settings:
    """Return a ``cell.json`` of the study with some switches and a log line for each run.

    Args:
        plan: sizes.
        settings: the switches.
        accumulated: how many of the plan's batches, one after the other, are one step.
    """
    config = read_yaml(Path("config.yaml"))
    by_kind = {
        name: {"cpu": settings[name], "cuda": settings[name]} if isinstance(config["training"][name], dict) else value
        for name, value in settings.items()
    }
    return {
        "cell": {"study": "benchmark", "parameterization": "epsilon", "scale": plan.scale, "seed": 0},
        "variant": {
            "target": "epsilon",
            "loss_space": "epsilon",
            "weighting": "constant",
            "parameters": {},
            "diffusion": config["diffusion"],
        },
        "network": dict(plan.network),
        "data": {"dataset": "cifar10", "horizontal_flip": True},
        "training": {
            **config["training"],
            **by_kind,
            "global_batch": accumulated * plan.batch,
            "micro_batch": plan.batch,
            "log_every": plan.steps,
        },
    }


def sampling_options(plan: Plan) -> Settings:
    """Return a ``sampling.json`` of the study with the plan's sizes."""
    options: Settings = read_yaml(Path("config.yaml"))["sampling"]
    sizes = {"steps": plan.sampling_steps, "images": plan.sampling_images, "batch": plan.sampling_images}
    return {**options, **sizes}


def load_images(count: int) -> tuple[str, Images]:
    """Return CIFAR-10's first training images and what to call them; random ones where it is not prepared."""
    if (store.ROOT / "cifar10/manifest.json").exists():
        return f"CIFAR-10 train, first {count:,}", store.load(store.ROOT / "cifar10", "train").first(count)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return "random pixels, 32×32×3", Images(pixels, np.zeros(count, dtype=np.int64), "0" * 64)


def use_threads() -> int:
    """Let PyTorch use every core of this process, and return their number."""
    count = usable_cores()
    torch.set_num_threads(count)
    return count
