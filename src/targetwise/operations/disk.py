"""The disk that a grid needs, counted from its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from targetwise.data import digests, store
from targetwise.files import read_json
from targetwise.recipe import labels, variants
from targetwise.training.power import SNAPSHOTS

#: Of an extractor that is not here, as many as an image has numbers.
FEATURES = {"inception": 2048, "digits": 32}
FP32_BYTES, FP64_BYTES, LABEL_BYTES = 4, 8, 8

#: A saved state holds model, EMA and two moments, beside stored averages and their snapshots, and the last one stays
#: until the next is whole.
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


def image_shapes(config: Mapping[str, Any]) -> Mapping[str, list[int]] | None:
    """Return the shapes (N, H, W, C) of the study's ``train`` and ``test``; None where only preparing them tells."""
    name = config["data"]["dataset"]
    manifest = store.ROOT / name / "manifest.json"
    if manifest.exists():
        return {split: facts["shape"] for split, facts in read_json(manifest)["splits"].items()}
    return digests.shapes(config["datasets"][name])


def disk(config: Mapping[str, Any], shapes: Mapping[str, list[int]], training_at_once: int = 1) -> Disk:
    """Return the bytes that the grid needs.

    Args:
        config: the whole configuration.
        shapes: (N, H, W, C) of each split.
        training_at_once: how many cells are in training together.
    """
    from targetwise.diffusion.cost import cost

    _, height, width, channels = shapes["train"]
    axes = config["grid"]
    weights = {}
    for name, scale in product(axes["parameterizations"], axes["scales"]):
        found = cost(variants.network(config, name, scale), channels, height, labels.classes(config, name))
        weights[name, scale] = FP32_BYTES * found.parameters
    training = {name: variants.settings(config, name)["training"] for name in axes["parameterizations"]}
    averages = {name: len(each.get("ema_power", ())) for name, each in training.items()}
    kept = {name: averages[name] * SNAPSHOTS + len(each.get("snapshots", ())) for name, each in training.items()}
    images_of = {
        name: sum(options["draws"] * options["images"] for options in variants.samplings(config, name).values())
        for name in axes["parameterizations"]
    }
    in_state = [(WEIGHTS_IN_STATE + averages[name] + kept[name]) * each for (name, _), each in weights.items()]
    in_training = sorted([each for each in in_state for _ in axes["seeds"]], reverse=True)
    features = FEATURES.get(config["metric"]["extractor"], height * width * channels)
    reference = reference_images(config, shapes) * features * FP32_BYTES + features**2 * FP64_BYTES
    images = sum(n * (h * w * c + LABEL_BYTES) for n, h, w, c in shapes.values())
    return Disk(
        cells={
            scale: len(axes["seeds"])
            * sum(
                weights[name, scale] * (1 + kept[name]) + images_of[name] * height * width * channels
                for name in images_of
            )
            for scale in axes["scales"]
        },
        states=STATES * sum(in_training[:training_at_once]),
        shared=images + reference,
    )


def cells_of_a_scale(config: Mapping[str, Any]) -> int:
    """Return how many cells of the grid are at each scale."""
    return len(config["grid"]["parameterizations"]) * len(config["grid"]["seeds"])


def reference_images(config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> int:
    """Return how many images the metric's reference is made of; ``shapes`` are (N, H, W, C) by split."""
    reference = config["metric"]["reference"]
    return int(reference.get("first") or shapes[reference["split"]][0])
